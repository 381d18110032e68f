import { type CallContext, untold } from './context.ts';
import { denyDecision } from './decide.ts';
import type { Decision } from './decision.ts';
import type { ProxyRequest } from './istio-request.ts';
import { istioFacts } from './istio-match.ts';
import {
  allMatches,
  type IstioCause,
  type IstioJudgement,
  type IstioRules,
  judgeAsIstio,
} from './istio-rules.ts';
import type { RawHttpRequest } from './request.ts';
import type { Snapshot } from './snapshot.ts';

/** A call as a door has it, nothing interpreted. */
export type RawCall =
  | ({ readonly protocol: 'http' } & RawHttpRequest)
  | ({ readonly protocol: 'tcp' } & Pick<RawHttpRequest, 'source' | 'destination' | 'port' | 'context'>);

/**
 * Judges a call in Istio mode: as `judgeAsIstio` does, but that nobody asks the provider of a CUSTOM policy, and a call is
 * denied of which the proxy does not tell what a rule reads. Total: a failure of ours is a denial with `engine_failed`.
 * @param onFailure told the error behind `engine_failed`; what it throws is dropped
 */
export function decideLikeIstio(
  snapshot: Snapshot,
  call: RawCall,
  now: Date,
  onFailure?: (error: unknown) => void,
): Decision {
  try {
    return { ...judge(snapshot, call, now), mode: 'istio' };
  } catch (error) {
    try {
      onFailure?.(error);
    } catch {
      // The denial below stands whatever becomes of the report.
    }
    const denied = denyDecision('engine_failed', 'the policy engine failed', snapshot.revision);
    return { ...denied, mode: 'istio' };
  }
}

/** What Istio's reading compares with: what a proxy of Istio would have seen itself. */
export function proxyRequestOf(call: RawCall, headers: ReadonlySet<string>): ProxyRequest {
  const { source, port, context = untold } = call;
  const { headerLines, sourceIp, remoteIp, destinationIp, sni, claims, metadata } = context;
  const isHttp = call.protocol === 'http';
  return {
    protocol: call.protocol,
    peerNames: source === null ? [] : [source.text],
    method: isHttp ? orNull(call.method) : null,
    path: isHttp ? orNull(call.path) : null,
    host: isHttp ? orNull(call.authority) : null,
    headers: [...headers].flatMap((name) =>
      (headerLines?.(name) ?? []).map((line): [string, string] => [name, line]),
    ),
    sourceIp: sourceIp ?? null,
    remoteIp: remoteIp ?? null,
    destinationIp: destinationIp ?? null,
    destinationPort: port === 0 ? null : port,
    sni: sni ?? '',
    claims: claims ?? null,
    metadata: metadata ?? new Map(),
  };
}

/** The names of all rules that match a call, whatever they decide. */
export function matchingRules(rules: IstioRules, call: RawCall, now: Date): readonly string[] {
  const facts = istioFacts(rules.mesh, proxyRequestOf(call, rules.reads.headers), now);
  const { custom, deny, allow, audit, trialAllow, trialDeny } = rules;
  return [custom, deny, allow, audit, trialAllow, trialDeny].flatMap((set) =>
    allMatches(set, facts).map(({ name }) => name),
  );
}

function orNull(text: string): string | null {
  return text === '' ? null : text;
}

function judge(snapshot: Snapshot, call: RawCall, now: Date): Decision {
  const { revision, trustDomain, istio } = snapshot;
  // INVARIANT: without a time that can be told no bound of a policy is taken to hold or not.
  if (Number.isNaN(now.getTime())) throw new Error('the time is not known');
  if (!call.destination.memberOf(trustDomain)) {
    return denyDecision('no_policy', 'the destination is of another trust domain', revision);
  }
  const answers = istio.rulesFor(call.destination).map((rules) => judgeOne(snapshot, rules, call, now));
  // INVARIANT: of several workloads with the ID, one that would deny is enough.
  const answer = answers.find(({ verdict }) => verdict === 'deny') ?? answers[0];
  if (answer === undefined) throw new Error('there is no workload to judge for');
  return answer;
}

function judgeOne(snapshot: Snapshot, rules: IstioRules, call: RawCall, now: Date): Decision {
  const { revision } = snapshot;
  const untoldFact = whatIsUntold(rules, call);
  if (untoldFact !== undefined) {
    return denyDecision('request_ambiguous', `a policy reads ${untoldFact}`, revision);
  }
  const judged = judgeAsIstio(rules, proxyRequestOf(call, rules.reads.headers), now);
  const { shadow, audited, asked, because, allow } = judged;
  const isTried = shadow.allow !== null || shadow.deny !== null;
  const beside = {
    custom: asked?.provider ?? null,
    audited: audited[0]?.name ?? '',
    shadow: isTried ? shadow : null,
  };
  const why = `in Istio mode ${describe(judged)}`;
  if (asked !== null && !snapshot.providersAnswer) {
    const unanswered = `in Istio mode ${asked.name} leaves the call to ${beside.custom}, which is asked by nobody here`;
    return { ...denyDecision('custom_unanswered', unanswered, revision), ...beside, rule: asked.name };
  }
  const rule = judged.rule?.name ?? '';
  if (because === 'allow_rule' || because === 'no_allow_policy') {
    // INVARIANT: only these two are an allow, and the judgement says so as well.
    if (!allow) throw new Error('the judgement contradicts its cause');
    const reason = because === 'allow_rule' ? 'allow_rule' : 'allow_by_default';
    return { verdict: 'allow', reason, rule, why, revision, nearest: null, breakGlass: '', ...beside };
  }
  return { ...denyDecision(denials[because], why, revision), ...beside, rule };
}

const denials = {
  path_refused: 'request_invalid',
  several_providers: 'custom_unanswered',
  deny_rule: 'deny_rule',
  no_allow_rule: 'no_allow_rule',
} as const;

function describe({ because, rule }: IstioJudgement): string {
  const texts: Readonly<Record<IstioCause, string>> = {
    path_refused: 'the proxy answers this path with 400',
    several_providers: 'the workload has CUSTOM policies of several providers',
    deny_rule: `denied by ${rule?.name ?? ''}`,
    no_allow_policy: 'no ALLOW policy applies to the destination, so all is allowed that nothing denies',
    allow_rule: `allowed by ${rule?.name ?? ''}`,
    no_allow_rule: 'no ALLOW rule matched',
  };
  return texts[because];
}

/** What a deciding rule reads and nobody has told: Istio has no word for it, and to guess could open a door. */
function whatIsUntold({ reads: { deciding } }: IstioRules, call: RawCall): string | undefined {
  const { source, protocol, port, context = untold } = call;
  const { headerLines, sni, claims, metadata }: CallContext = context;
  const { headers, attributes } = deciding;
  if (protocol === 'http') {
    for (const name of headers) {
      if (headerLines === undefined) return `the header ${name}, which is not told`;
      if (headerLines(name) === undefined) {
        return `the header ${name}, whose lines are joined (encode_raw_headers is off) or beside one that is read as it`;
      }
    }
    const isTokenUntold = claims === undefined && (metadata?.get(jwtFilter)?.size ?? 0) > 0;
    if (isTokenUntold && [...attributes].some((attribute) => attribute.startsWith('request.auth.'))) {
      return 'the token, and there are several';
    }
  }
  if (attributes.has('connection.sni') && sni === undefined && source !== null) {
    return 'what TLS asked for, which is not told (include_tls_session is off)';
  }
  if (attributes.has('destination.port') && port === 0) return 'the port, which is not told';
  if (attributes.has('filter.metadata') && metadata === undefined)
    return 'what filters noted, which is not told';
  for (const [attribute, field, what] of addresses) {
    if (attributes.has(attribute) && context[field] === undefined) return `${what}, which is not told`;
  }
  return undefined;
}

const addresses = [
  ['source.ip', 'sourceIp', 'the address of the caller'],
  ['remote.ip', 'remoteIp', 'the address of the client'],
  ['destination.ip', 'destinationIp', 'the address of the destination'],
] as const;
const jwtFilter = 'envoy.filters.http.jwt_authn';
