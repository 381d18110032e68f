import { MeshError, quote } from '../errors.ts';
import type { Entitlement } from '../identity/entitlement.ts';
import type { RegistrationEntry } from '../identity/entry.ts';
import type { Attestation } from '../identity/evidence.ts';
import type { MintJwt, ValidateJwt } from '../identity/jwt-svid.ts';
import { SpiffeId } from '../spiffe/id.ts';
import type {
  JWTSVIDRequest,
  JWTSVIDResponse,
  ValidateJWTSVIDRequest,
  ValidateJWTSVIDResponse,
} from '../wire/workload.ts';
import { type Denial, denyAll, denyDefault, uniqueHints } from './answer.ts';
import type { Asked } from './carry.ts';
import { claimsForWire } from './claims.ts';

export type TokenParts = {
  readonly entitled: (attestation: Attestation) => Entitlement;
  readonly mintJwt: MintJwt;
  readonly validateJwt: ValidateJwt;
};

/**
 * Answers FetchJWTSVID: a token for the identity asked for, or one for each identity of the caller, the default first.
 * @param spend takes one more token from what the caller has left; the first was taken by whoever calls
 */
export function mintTokens(
  { entitled, mintJwt }: TokenParts,
  spend: (asked: Asked) => void,
): (request: JWTSVIDRequest, asked: Asked) => Promise<JWTSVIDResponse> {
  return async ({ audience, spiffeId }, asked) => {
    asked.resource = spiffeId;
    if (audience.length === 0) {
      throw new MeshError('jwt_audience_invalid', 'no audience is named', {
        fix: 'name the service the token is for',
      });
    }
    const wanted = spiffeId === '' ? undefined : SpiffeId.parseWorkload(spiffeId);
    const attestation = attestationOf(asked);
    const entries = chooseEntries(entitled(attestation), wanted);
    for (let more = 1; more < entries.length; more++) spend(asked);
    const svids = await Promise.all(
      entries.map((entry) => mintJwt({ entry, audiences: audience, attestation })),
    );
    const hint = uniqueHints();
    return {
      svids: svids.map((svid) => ({ spiffeId: svid.id.text, svid: svid.token, hint: hint(svid.hint) })),
    };
  };
}

/** Answers ValidateJWTSVID. Whatever is wrong with the token is INVALID_ARGUMENT, with its code in the message. */
export function validateToken({
  entitled,
  validateJwt,
}: TokenParts): (request: ValidateJWTSVIDRequest, asked: Asked) => Promise<ValidateJWTSVIDResponse> {
  return async ({ audience, svid }, asked) => {
    if (audience === '' || svid === '') {
      throw new MeshError('message_invalid', `the request has no ${svid === '' ? 'svid' : 'audience'}`);
    }
    demand(denyAll(entitled(attestationOf(asked))));
    try {
      const { id, claims } = await validateJwt(svid, audience);
      return { spiffeId: id.text, claims: claimsForWire(claims) };
    } catch (error) {
      throw tokenFailure(error);
    }
  };
}

function chooseEntries(entitlement: Entitlement, wanted: SpiffeId | undefined): readonly RegistrationEntry[] {
  const { entries, banned } = entitlement;
  if (wanted === undefined) {
    demand(denyDefault(entries.length > 0, entitlement));
    return onePerIdentity(entries);
  }
  const entry = entries.find(({ spiffeId }) => spiffeId.equals(wanted));
  if (entry !== undefined) return [entry];
  // Only a caller that would have the identity learns that it is banned.
  if (banned.some((id) => id.equals(wanted)))
    throw new MeshError('identity_banned', 'the identity is banned');
  throw new MeshError('identity_none', `the caller is not entitled to ${quote(wanted.text)}`);
}

function onePerIdentity(entries: readonly RegistrationEntry[]): readonly RegistrationEntry[] {
  const first = new Map<string, RegistrationEntry>();
  for (const entry of entries) {
    if (!first.has(entry.spiffeId.text)) first.set(entry.spiffeId.text, entry);
  }
  return [...first.values()];
}

/** A banned subject makes the token invalid: a refusal would tell callers that they themselves are refused. */
function tokenFailure(error: unknown): unknown {
  if (!(error instanceof MeshError)) return error;
  const { code, kind, message } = error;
  if (kind !== 'invalid' && code !== 'identity_banned') return error;
  return new MeshError(kind === 'invalid' ? code : 'jwt_invalid', `${code}: ${message}`, { cause: error });
}

function demand(denial: Denial | undefined): void {
  if (denial !== undefined) throw new MeshError(denial.code, denial.message);
}

function attestationOf({ attestation }: Asked): Attestation {
  if (attestation === undefined) throw new MeshError('internal', 'the caller has not been attested');
  return attestation;
}
