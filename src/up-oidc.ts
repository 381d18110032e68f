import { accessSync, constants } from 'node:fs';
import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import { MeshError, quote } from './errors.ts';
import { createIdTokenCheck, type FindIssuerKey, type VerifyIdToken } from './identity/id-token.ts';
import type { Log } from './log.ts';
import { askHttps, readBounded } from './node/kubernetes-call.ts';
import { createKeySource } from './node/kubernetes-keys.ts';
import { readJsonObject } from './spiffe/inspect-json.ts';

/** What the sign-in of people is configured with. */
export type OidcConfig = Pick<
  Config,
  'oidcIssuer' | 'oidcAudience' | 'oidcJwksFile' | 'oidcCaFile' | 'oidcGroupsClaim' | 'oidcMaxAgeSeconds'
>;

/**
 * Judges ID tokens of the configured issuer; null when none is configured.
 * @throws MeshError `config_invalid` when a file it names cannot be read
 */
export function openOidc(config: OidcConfig, clock: Clock, log: Log): VerifyIdToken | null {
  const { oidcIssuer: issuer, oidcAudience: audience } = config;
  if (issuer === null || audience === null) return null;
  for (const name of ['oidcJwksFile', 'oidcCaFile'] as const) checkReadable(name, config[name]);
  const find = createKeySource({
    fetch: () => readIssuerKeys(config, issuer),
    clock,
    warn: (_message, detail) => log.warn({ issuer, ...detail }, 'the keys of the OIDC issuer cannot be read'),
  });
  const findKey: FindIssuerKey = async (keyId) => {
    try {
      return await find(keyId);
    } catch (cause) {
      throw new MeshError('oidc_unavailable', 'the keys of the OIDC issuer are not known', {
        fix: 'try again later; the log of the server says why, and tokens of its own still work',
        cause,
      });
    }
  };
  const settings = {
    issuer,
    audience,
    groupsClaim: config.oidcGroupsClaim,
    maxAgeSeconds: config.oidcMaxAgeSeconds,
  };
  return createIdTokenCheck(settings, findKey, clock);
}

/** Told at the start: otherwise the first person who signs in would find out. */
function checkReadable(name: 'oidcJwksFile' | 'oidcCaFile', file: string | null): void {
  if (file === null) return;
  try {
    accessSync(file, constants.R_OK);
  } catch (cause) {
    throw new MeshError('config_invalid', `${name}: ${quote(file)} cannot be read`, {
      fix: 'check the path and its permissions',
      cause,
    });
  }
}

/**
 * The JWKS of an issuer: of a file, or from where its discovery document says. Everything over TLS, redirects are not
 * followed.
 * @throws Error that says what is in the way
 * @see OpenID Connect Discovery 1.0 section 4
 */
export async function readIssuerKeys(
  { oidcJwksFile: file, oidcCaFile: caFile }: Pick<OidcConfig, 'oidcJwksFile' | 'oidcCaFile'>,
  issuer: string,
): Promise<string> {
  if (file !== null) return readBounded(file, maxAnswerBytes);
  const signal = AbortSignal.timeout(fetchMs);
  const discovery = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
  const document = readJsonObject(await get(discovery, caFile, signal), 'the discovery document').members;
  // A document that anybody else answers with must not say where the keys are.
  if (document.get('issuer') !== issuer) throw new Error('the discovery document is of another issuer');
  const uri = document.get('jwks_uri');
  if (typeof uri !== 'string') throw new Error('the discovery document has no jwks_uri');
  return get(uri, caFile, signal);
}

async function get(text: string, caFile: string | null, signal: AbortSignal): Promise<string> {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'https:' || url.username !== '' || url.password !== '') {
    throw new Error('the issuer names a URL that is not https');
  }
  const at = { url: new URL(url.origin), caFile, tokenFile: null };
  const path = `${url.pathname}${url.search}`;
  const answer = await askHttps({ at, method: 'GET', path, maxBytes: maxAnswerBytes, signal });
  if (answer.status !== 200) throw new Error(`the issuer answers with ${answer.status}`);
  return answer.text;
}

const fetchMs = 5_000;
const maxAnswerBytes = 262_144;
