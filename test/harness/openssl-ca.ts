import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A CA that OpenSSL made, as docs/hierarchy.md says. */
export type OpensslCa = {
  readonly certificate: string;
  /** Signs a request with the extensions of an intermediate of ours; the chain up to the root, PEM. */
  readonly sign: (csrFile: string, extensions?: string) => string;
  /** A CA below it, such as a company's own. */
  readonly subordinate: (name: string) => OpensslCa;
};

/** Makes a root with OpenSSL. @param lines more lines of its extensions, such as name constraints */
export function makeOpensslRoot(
  dir: string,
  name: string,
  options: { key?: string[]; lines?: string } = {},
): OpensslCa {
  const { key = ['EC', '-pkeyopt', 'ec_paramgen_curve:P-384'], lines = '' } = options;
  const file = (suffix: string) => join(dir, `${name}.${suffix}`);
  openssl(['genpkey', '-algorithm', ...key, '-out', file('key')]);
  writeFileSync(file('cnf'), rootConfig(name, lines));
  openssl([
    'req',
    '-x509',
    '-new',
    '-key',
    file('key'),
    '-days',
    '3650',
    '-config',
    file('cnf'),
    '-out',
    file('pem'),
  ]);
  return opened(dir, name, readFileSync(file('pem'), 'latin1'));
}

function opened(dir: string, name: string, chain: string): OpensslCa {
  const file = (suffix: string) => join(dir, `${name}.${suffix}`);
  const sign = (csrFile: string, extensions: string, days: number): string => {
    writeFileSync(file('ext'), extensions);
    return openssl([
      ...['x509', '-req', '-in', csrFile, '-CA', file('pem'), '-CAkey', file('key')],
      ...['-extfile', file('ext'), '-days', `${days}`, '-sha384'],
    ]);
  };
  return {
    certificate: readFileSync(file('pem'), 'latin1'),
    sign: (csrFile, extensions = intermediateExtensions('mesh.test')) =>
      sign(csrFile, extensions, 30) + chain,
    subordinate: (below) => {
      const own = (suffix: string) => join(dir, `${below}.${suffix}`);
      openssl(['genpkey', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:3072', '-out', own('key')]);
      openssl(['req', '-new', '-key', own('key'), '-subj', `/O=Corp/CN=${below}`, '-out', own('csr')]);
      const pem = sign(own('csr'), subordinateExtensions, 365);
      writeFileSync(own('pem'), pem);
      return opened(dir, below, pem + chain);
    },
  };
}

/** The extensions of our intermediate: the file that docs/hierarchy.md gives to `openssl x509 -req -extfile`. */
export function intermediateExtensions(trustDomain: string): string {
  return `basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = URI:spiffe://${trustDomain}
`;
}

const subordinateExtensions = `basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
`;

function rootConfig(name: string, lines: string): string {
  return `[req]
prompt = no
distinguished_name = name
x509_extensions = root
[name]
O = Example
CN = ${name}
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
${lines}
`;
}

function openssl(args: readonly string[]): string {
  return execFileSync('openssl', args, { encoding: 'latin1', stdio: ['ignore', 'pipe', 'pipe'] });
}
