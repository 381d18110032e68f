import { MeshError, quote } from '../errors.ts';

/**
 * Proves the `iss` of tokens for OIDC relying parties, and gives it back unchanged: `https://`, a host name of lower-case
 * letters, digits, hyphens and dots, perhaps a port, perhaps a path without a slash at its end; no user, query, fragment
 * or `%`; at most 512 characters. Relying parties compare it character by character.
 * @throws MeshError `config_invalid`
 * @see OpenID Connect Discovery 1.0 sections 3 and 4
 */
export function checkIssuer(issuer: string): string {
  const [, host = '', port, path = ''] = issuer.length > maxIssuerChars ? [] : (shape.exec(issuer) ?? []);
  const holds =
    host.length <= 253 &&
    host.split('.').every((label) => hostLabel.test(label)) &&
    (port === undefined || (Number(port) >= 1 && Number(port) <= 65_535)) &&
    path.split('/').every((segment) => segment !== '.' && segment !== '..');
  if (holds) return issuer;
  throw new MeshError('config_invalid', `the issuer of tokens ${quote(issuer)} is no plain https URL`, {
    fix: 'write it as https://oidc.example.org, without a slash at the end',
  });
}

const maxIssuerChars = 512;
const shape = /^https:\/\/([a-z0-9.-]+)(?::([0-9]{1,5}))?((?:\/[A-Za-z0-9._~-]+)*)$/;
const hostLabel = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
