import { Command, Option } from 'commander';
import { examples } from './help.ts';
import { clientOf, print, type Session } from './session.ts';
import { printableJson } from './text.ts';

/** `countersign trust-bundle`. */
export function trustBundleCommand(session: Session): Command {
  return new Command('trust-bundle')
    .description("print what the trust domain's certificates and tokens are verified with")
    .addOption(
      new Option(
        '--format <format>',
        'pem: the CA certificates; spiffe: these and the keys of tokens, as JSON',
      )
        .choices(['pem', 'spiffe'])
        .default('pem'),
    )
    .addHelpText(
      'after',
      examples('trust-bundle > ca.pem', 'trust-bundle --format spiffe > bundle.json', 'trust-bundle -o json'),
    )
    .action(async ({ format }: { readonly format: string }, command: Command) => {
      const client = clientOf(session, command);
      if (format === 'spiffe') {
        const document = await client.get('/v1/trust-bundle', { format: 'spiffe' });
        print(session, command, document, () => `${printableJson(document)}\n`);
        return;
      }
      const pem = await client.getText('/v1/trust-bundle');
      print(session, command, { pem }, () => checkedPem(pem));
    });
}

// The one text of a server that is printed as it is, so it may hold nothing but PEM.
function checkedPem(pem: string): string {
  return pem.replace(/[^\n\x20-\x7e]/g, '');
}
