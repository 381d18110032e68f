import { Command } from 'commander';
import { examples } from './help.ts';
import { clientOf, print, type Session } from './session.ts';

/** `countersign trust-bundle`. */
export function trustBundleCommand(session: Session): Command {
  return new Command('trust-bundle')
    .description("print the trust domain's CA certificates (PEM)")
    .addHelpText('after', examples('trust-bundle > ca.pem', 'trust-bundle -o json'))
    .action(async (_options, command: Command) => {
      const pem = await clientOf(session, command).getText('/v1/trust-bundle');
      print(session, command, { pem }, () => checkedPem(pem));
    });
}

// The one text of a server that is printed as it is, so it may hold nothing but PEM.
function checkedPem(pem: string): string {
  return pem.replace(/[^\n\x20-\x7e]/g, '');
}
