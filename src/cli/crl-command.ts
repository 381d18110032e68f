import { Command } from 'commander';
import { MeshError } from '../errors.ts';
import { decodePem } from '../spiffe/pem.ts';
import { examples } from './help.ts';
import { clientOf, print, type Session } from './session.ts';

/** `countersign ca crl`. */
export function crlCommand(session: Session): Command {
  return new Command('crl')
    .description('print the revocation lists of the CAs that sign leaves (PEM)')
    .option('--ca <keyId>', 'that of one CA, as `ca status` shows it')
    .option('--der', 'as DER, which holds one list: add --ca when there are several CAs')
    .addHelpText('after', examples('ca crl > crl.pem', 'ca crl --ca 3f… --der > ca.crl'))
    .action(async ({ ca, der = false }: { ca?: string; der?: boolean }, command: Command) => {
      const query = ca === undefined ? '' : `?keyId=${encodeURIComponent(ca)}`;
      const pem = checkedPem(await clientOf(session, command).getText(`/v1/ca/crl${query}`));
      if (der) session.write(onlyList(pem));
      else print(session, command, { pem }, () => pem);
    });
}

function onlyList(pem: string): Uint8Array {
  const [list, ...others] = decodePem(pem, 'X509 CRL', { maxBytes: maxListBytes });
  if (list !== undefined && others.length === 0) return list;
  throw new MeshError('usage', `there are ${others.length + 1} lists, and DER holds one`, {
    fix: 'add --ca with the key ID of an intermediate that `countersign ca status` shows',
  });
}

// The text of a server that is printed as it is, so it may hold nothing but PEM.
function checkedPem(pem: string): string {
  return pem.replace(/[^\n\x20-\x7e]/g, '');
}

const maxListBytes = 33_554_432;
