import { denyDecision } from '../authz/decide.ts';
import type { Decision } from '../authz/decision.ts';
import { CheckResponse, type DeniedHttpResponse } from '../wire/authz.ts';
import { HeaderValueOption_HeaderAppendAction } from '../wire/core.ts';

/** The header of a denial that names its decision; also what the access log and the audit log are joined on. */
export const decisionHeader = 'x-countersign-decision';

/** Request headers that begin so are ours alone: an allowed request loses them before the application sees it. */
export const ownHeaderPrefix = 'x-countersign-';

/** The text of a denial; shown to whoever made the call, so it may not name rules or internals. */
export type DenyBody = (decision: Decision, decisionId: string) => string;

/** The bytes for the proxy and the decision they carry, which is the one given unless it could not be encoded. */
export type Answer = { readonly bytes: Buffer; readonly decision: Decision };

/**
 * Encodes a decision as a CheckResponse and proves it: the bytes are decoded again and compared with the decision,
 * because Envoy reads an empty message, or a status without a code, as an allow. What is not proven is a deny.
 *
 * A denial is HTTP 403 with status code 7, also for callers without a certificate: 401 would ask a browser for a
 * password, which changes nothing here.
 * @param decisionId 1 to 64 of `A-Za-z0-9._-`; anything else is replaced by `unknown`
 * @param foreignHeaders names of request headers to remove on an allow, beside {@link decisionHeader}
 * @see envoy.service.auth.v3.CheckResponse
 */
export function encodeDecision(
  decision: Decision,
  decisionId: string,
  foreignHeaders: readonly string[] = [],
  denyBody: DenyBody = describeDenial,
): Answer {
  const id = /^[A-Za-z0-9._-]{1,64}$/.test(decisionId) ? decisionId : 'unknown';
  const isPlain = foreignHeaders.length === 0 && denyBody === describeDenial;
  const made = isPlain ? fromMould(decision, id) : undefined;
  if (made !== undefined) return { bytes: made, decision };
  return encodeWhole(decision, id, foreignHeaders, denyBody);
}

function encodeWhole(
  decision: Decision,
  id: string,
  foreignHeaders: readonly string[],
  denyBody: DenyBody,
): Answer {
  try {
    // An allow that does not name a reason for an allow was not made by the engine.
    if (decision.verdict === 'allow' && isReasonToAllow(decision)) {
      const bytes = encodeAllow(decision, id, foreignHeaders);
      if (isProvenAllow(bytes, id)) return { bytes, decision };
    } else if (decision.verdict === 'deny' && !isReasonToAllow(decision)) {
      const bytes = encodeDeny(denyBody(decision, id), id, decision);
      if (isProvenDeny(bytes)) return { bytes, decision };
    }
  } catch {
    // The constant below is the answer to every failure here, whatever it was.
  }
  return { bytes: constantDeny, decision: engineFailed(decision) };
}

/**
 * Answers of one kind differ in the decision's ID alone. The first of a kind is encoded and proven; the next are copies of
 * it with another ID of the same length in the places of the first, which changes nothing else that a decoder sees.
 */
function fromMould(decision: Decision, id: string): Buffer | undefined {
  const { verdict, reason, rule, revision, mode } = decision;
  if (id.length !== mouldId.length || typeof rule !== 'string' || !Number.isSafeInteger(revision))
    return undefined;
  // INVARIANT: nothing that is not exactly an allow has the name of one.
  const isAllow = verdict === 'allow' && isReasonToAllow(decision);
  const isDeny = verdict === 'deny' && typeof reason === 'string' && !isReasonToAllow(decision);
  if ((!isAllow && !isDeny) || !isMode(mode)) return undefined;
  const kind = `${verdict} ${reason} ${mode ?? ''} ${isMarked(decision) ? 'marked' : ''} ${revision} ${rule}`;
  let mould = moulds.get(kind);
  if (mould === undefined) {
    if (moulds.size >= maxMoulds) moulds.clear();
    mould = castMould({
      ...denyDecision('engine_failed', '', 0),
      verdict,
      reason,
      rule,
      revision,
      audited: isMarked(decision) ? 'marked' : '',
      ...(mode === undefined ? {} : { mode }),
    });
    moulds.set(kind, mould);
  }
  if (mould.places.length === 0) return undefined;
  const bytes = Buffer.from(mould.bytes);
  for (const place of mould.places) bytes.write(id, place, 'latin1');
  return bytes;
}

function isMode(mode: unknown): boolean {
  return mode === undefined || mode === 'strict' || mode === 'istio';
}

type Mould = { readonly bytes: Buffer; readonly places: readonly number[] };

/** Without places when the answer is not the decision's own, or when the rule's name could be taken for an ID. */
function castMould(decision: Decision): Mould {
  const answer = encodeWhole(decision, mouldId, [], describeDenial);
  const { bytes } = answer;
  const places: number[] = [];
  for (let at = bytes.indexOf(mouldId); at !== -1; at = bytes.indexOf(mouldId, at + 1)) places.push(at);
  // In the status or the header and the body, and in the metadata.
  const expected = decision.verdict === 'allow' ? 2 : 3;
  return { bytes, places: answer.decision === decision && places.length === expected ? places : [] };
}

const moulds = new Map<string, Mould>();
const maxMoulds = 4_096;
/** As long as the IDs of `decision-id.ts`. */
const mouldId = 'countersign.decision.id_';

/**
 * The answer when no decision can be made at all (shutting down, overloaded): an error, not a denial. Envoy answers
 * its caller with 503 and counts `error`.
 */
export function encodeOutage(): Buffer {
  return constantOutage;
}

/** What Envoy 1.40 makes of an answer. Only the first lets the call pass. */
export type EnvoyReading = 'allow' | 'deny' | 'error';

/** Reads a CheckResponse as Envoy does, its dangerous defaults included: no status is status 0, and 0 is an allow. */
export function readAsEnvoy(bytes: Uint8Array): EnvoyReading {
  let response: CheckResponse;
  try {
    response = CheckResponse.decode(bytes);
  } catch {
    return 'error';
  }
  if ((response.status?.code ?? 0) === 0) return 'allow';
  return response.httpResponse?.$case === 'errorResponse' ? 'error' : 'deny';
}

/** A call that no rule is about is allowed in Istio mode, and only there. */
function isReasonToAllow({ reason, mode }: Decision): boolean {
  return reason === 'allow_rule' || (reason === 'allow_by_default' && mode === 'istio');
}

function encodeAllow(decision: Decision, id: string, foreignHeaders: readonly string[]): Buffer {
  return encode({
    // The message makes an intended allow different from every encoding accident, none of which carries one.
    status: { code: 0, message: allowMessage(id), details: [] },
    httpResponse: {
      $case: 'okResponse',
      okResponse: {
        headers: [],
        headersToRemove: [...new Set([decisionHeader, ...foreignHeaders])],
        responseHeadersToAdd: [],
        queryParametersToSet: [],
        queryParametersToRemove: [],
        dynamicMetadata: undefined,
      },
    },
    dynamicMetadata: metadata(decision, id),
  });
}

function encodeDeny(body: string, id: string, decision: Decision | undefined): Buffer {
  return encode({
    status: { code: permissionDenied, message: 'denied', details: [] },
    httpResponse: { $case: 'deniedResponse', deniedResponse: httpAnswer(403, body, id) },
    dynamicMetadata: decision === undefined ? undefined : metadata(decision, id),
  });
}

function isProvenAllow(bytes: Buffer, id: string): boolean {
  const { status, httpResponse } = CheckResponse.decode(bytes);
  return status?.code === 0 && status.message === allowMessage(id) && httpResponse?.$case === 'okResponse';
}

function isProvenDeny(bytes: Buffer): boolean {
  const { status, httpResponse } = CheckResponse.decode(bytes);
  return (
    status?.code === permissionDenied &&
    httpResponse?.$case === 'deniedResponse' &&
    httpResponse.deniedResponse.status?.code === 403
  );
}

function describeDenial(decision: Decision, decisionId: string): string {
  return `denied by policy: ${decision.reason}; decision ${decisionId}\n`;
}

function allowMessage(id: string): string {
  return `allowed ${id}`;
}

/** Whether an allowed call has a record of its own even where others are counted together. */
function isMarked({ audited, breakGlass }: Decision): boolean {
  return audited !== '' || breakGlass !== '';
}

/**
 * Lands in Envoy's metadata namespace `envoy.filters.http.ext_authz`, from where access logs may print it;
 * `src/access-log/decision-note.ts` reads it there.
 */
function metadata(decision: Decision, id: string): Record<string, string | number | boolean> {
  return {
    decision_id: id,
    verdict: decision.verdict,
    reason: decision.reason,
    rule: decision.rule,
    revision: decision.revision,
    mode: decision.mode ?? 'strict',
    ...(isMarked(decision) ? { recorded: true } : {}),
  };
}

function httpAnswer(status: 403 | 503, body: string, id: string | undefined): DeniedHttpResponse {
  return {
    status: { code: status },
    headers: id === undefined ? [] : [overwriteHeader(decisionHeader, id)],
    body,
  };
}

function overwriteHeader(key: string, value: string): DeniedHttpResponse['headers'][number] {
  return {
    header: { key, value, rawValue: Buffer.alloc(0) },
    append: undefined,
    appendAction: HeaderValueOption_HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    keepEmptyValue: false,
  };
}

function engineFailed({ revision }: Decision): Decision {
  const why = 'the answer could not be encoded as it was decided';
  return denyDecision('engine_failed', why, Number.isSafeInteger(revision) ? revision : 0);
}

function encode(response: CheckResponse): Buffer {
  return Buffer.from(CheckResponse.encode(response).finish());
}

// google.rpc.Code
const permissionDenied = 7;
const unavailable = 14;

const constantDeny = encodeDeny('denied by policy: engine_failed\n', 'unknown', undefined);
const constantOutage = encode({
  status: { code: unavailable, message: 'no decision could be made', details: [] },
  httpResponse: {
    $case: 'errorResponse',
    errorResponse: httpAnswer(503, 'the authorization service is not available\n', undefined),
  },
  dynamicMetadata: undefined,
});
