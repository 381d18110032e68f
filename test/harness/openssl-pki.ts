import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export type KeyPair = { readonly key: string; readonly cert: string };

/** A CA and certificates below it with any names at all, such as ours never has: each list one certificate, as openssl writes them. */
export function makeOpensslPki(
  directory: string,
  names: readonly (readonly string[])[],
): { readonly ca: string; readonly pairs: readonly KeyPair[] } {
  const file = (name: string) => join(directory, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl(
    ...['req', '-x509', ...newKey, '-days', '30', '-subj', '/CN=test'],
    ...['-keyout', file('ca.key'), '-out', file('ca.pem')],
  );
  // One key for all: making keys is what takes time.
  openssl('req', ...newKey, '-subj', '/O=test', '-keyout', file('leaf.key'), '-out', file('leaf.csr'));
  const key = readFileSync(file('leaf.key'), 'utf8');
  const pairs = names.map((some, index): KeyPair => {
    // A section of its own, so that a name may have a comma.
    const lines = some.map((one, i) => one.replace(':', `.${i + 1}=`));
    const altNames = lines.length === 0 ? '' : `subjectAltName=@names\n[names]\n${lines.join('\n')}\n`;
    writeFileSync(file('leaf.ext'), `basicConstraints=CA:FALSE\n${altNames}`);
    const leaf = file(`leaf-${index}.pem`);
    openssl(
      ...['x509', '-req', '-in', file('leaf.csr'), '-CA', file('ca.pem'), '-CAkey', file('ca.key')],
      ...['-days', '30', '-extfile', file('leaf.ext'), '-out', leaf],
    );
    return { key, cert: readFileSync(leaf, 'utf8') };
  });
  return { ca: readFileSync(file('ca.pem'), 'utf8'), pairs };
}
