import { kubernetesNames } from '../spiffe/id.ts';
import { canonicalAddress, isInCidr, parseAddress } from './cidr.ts';
import type { AuthzRequest, Decision, ShadowVerdict } from './decision.ts';
import { isHttpOnly, type PolicyAction } from './document.ts';
import { trimSpaces } from './header-line.ts';
import { compileTemplate } from './path-template.ts';
import type { Entry, Policy, Predicate, Rule, TextMatch } from './policy.ts';
import type { Workload } from './attachment.ts';
import type { SnapshotInput } from './snapshot.ts';

/**
 * The specification in code: what `decide` must answer, said as plainly as we can and with no thought for speed. It
 * shares no code with the index; tests hold the two against each other.
 */
export function decideNaively(
  mesh: SnapshotInput,
  request: AuthzRequest,
  now: Date,
): Pick<Decision, 'verdict' | 'reason' | 'rule' | 'custom' | 'audited' | 'shadow'> {
  const deny = { verdict: 'deny', rule: '', custom: null, audited: '', shadow: null } as const;
  if (request.source === null) return { ...deny, reason: 'unauthenticated' };
  const applied = mesh.policies
    .filter((policy) => applies(mesh, policy, request))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
  const first = (
    action: PolicyAction,
    dryRun: boolean,
    counts: (policy: Policy) => boolean = () => true,
  ): { policy: Policy; rule: Rule } | undefined =>
    applied
      .filter((policy) => policy.action === action && policy.dryRun === dryRun && counts(policy))
      .flatMap((policy) => policy.rules.map((rule) => ({ policy, rule })))
      .find(({ policy, rule }) => isInForce(policy, now) && holds(mesh, action, rule, request));
  const tried = (action: PolicyAction): boolean =>
    applied.some((policy) => policy.dryRun && policy.action === action);
  const shadow: ShadowVerdict = {
    allow: !tried('ALLOW') ? null : first('ALLOW', true) === undefined ? 'denied' : 'allowed',
    deny: !tried('DENY') ? null : first('DENY', true) === undefined ? 'allowed' : 'denied',
  };
  const beside = {
    audited: first('AUDIT', false)?.rule.name ?? '',
    shadow: shadow.allow === null && shadow.deny === null ? null : shadow,
  };
  if (applied.every(({ action, dryRun }) => dryRun || action === 'AUDIT')) {
    return { ...deny, ...beside, reason: 'no_policy' };
  }
  const asked = first('CUSTOM', false);
  const isGrant = ({ action, terms, rules }: Policy): boolean =>
    action === 'ALLOW' && terms.breakGlass !== null && rules.length > 0;
  const final = first('DENY', false, ({ terms }) => !terms.liftable);
  const liftable = first('DENY', false, ({ terms }) => terms.liftable);
  const granted = final === undefined ? first('ALLOW', false, isGrant) : undefined;
  // Where no grant applies at all, it makes no difference which DENY is liftable, nor which of them is named.
  const denied = applied.some((policy) => isGrant(policy))
    ? (final ?? (granted === undefined ? liftable : undefined))
    : first('DENY', false);
  const ordinary = first('ALLOW', false, (policy) => !isGrant(policy));
  // What an ordinary rule allows anyway is allowed by that.
  const allowed = liftable === undefined ? (ordinary ?? granted) : granted;
  const custom = asked?.policy.provider ?? null;
  if (asked !== undefined && mesh.providersAnswer !== true) {
    return { ...deny, ...beside, reason: 'custom_unanswered', rule: asked.rule.name, custom };
  }
  if (denied !== undefined) {
    return { ...deny, ...beside, reason: 'deny_rule', rule: denied.rule.name, custom };
  }
  return allowed === undefined
    ? { ...deny, ...beside, reason: 'no_allow_rule', custom }
    : { ...beside, verdict: 'allow', reason: 'allow_rule', rule: allowed.rule.name, custom };
}

function applies(mesh: SnapshotInput, policy: Policy, { destination }: AuthzRequest): boolean {
  if (destination.trustDomain.name !== mesh.trustDomain.name) return false;
  const known = mesh.workloads.filter(({ id }) => id.text === destination.text);
  const workloads: readonly Workload[] = known.length > 0 ? known : [{ id: destination, labels: {} }];
  const attaches = ({ id, labels }: Workload): boolean => {
    const carried = new Map(Object.entries(labels));
    const own = kubernetesNames(id)?.namespace ?? carried.get('namespace');
    const gateway = carried.get('gateway.networking.k8s.io/gateway-name');
    if (policy.targetRefs.length > 0) {
      const inPlace = policy.namespace === own;
      return (
        inPlace &&
        policy.targetRefs.some(({ name, namespace }) => name === gateway && (namespace ?? own) === own)
      );
    }
    const inNamespace = policy.namespace === mesh.rootNamespace || policy.namespace === own;
    return inNamespace && [...policy.selector].every(([key, value]) => carried.get(key) === value);
  };
  return policy.action === 'ALLOW' ? workloads.every(attaches) : workloads.some(attaches);
}

/** Without a time that can be told an ALLOW policy is not in force, and every other one is. */
function isInForce({ action, terms }: Policy, now: Date): boolean {
  if (Number.isNaN(now.getTime())) return action !== 'ALLOW' || (!terms.notBefore && !terms.expiresAt);
  const hasBegun = terms.notBefore === null || terms.notBefore <= now;
  const isOver = terms.expiresAt !== null && terms.expiresAt <= now;
  return hasBegun && !isOver;
}

function holds(mesh: SnapshotInput, action: PolicyAction, rule: Rule, request: AuthzRequest): boolean {
  // What cannot be judged fails for ALLOW and holds for every other action.
  const judge = (predicate: Predicate): boolean =>
    evaluate(mesh, action, predicate, request) ?? action !== 'ALLOW';
  const some = (entries: readonly Entry[]): boolean =>
    entries.length === 0 || entries.some(({ predicates }) => predicates.every(judge));
  return some(rule.from) && some(rule.to) && some(rule.when);
}

/** What an attribute has: one text, several, none (known to be missing), or not known. */
type Having = string | readonly string[] | null | undefined;

function evaluate(
  mesh: SnapshotInput,
  action: PolicyAction,
  predicate: Predicate,
  request: AuthzRequest,
): boolean | undefined {
  const { attribute, negated } = predicate;
  if (request.protocol === 'tcp' && isHttpOnly(attribute)) return undefined;
  // That has been judged with the policy.
  if (predicate.kind === 'time') return true;
  const isMissing = negated && action !== 'ALLOW';
  if (predicate.kind === 'port') {
    return request.port === 0 ? undefined : predicate.matches.includes(request.port) !== negated;
  }
  if (predicate.kind === 'host') {
    if (request.host === '') return undefined;
    const named = predicate.matches.filter(({ name }) => compare(name, request.host));
    if (named.some(({ port }) => port === null || port === request.hostPort)) return !negated;
    return named.length > 0 && request.hostPort === null ? undefined : negated;
  }
  if (predicate.kind === 'address') {
    const { sourceIp, remoteIp, destinationIp } = request.context;
    const text = attribute === 'source.ip' ? sourceIp : attribute === 'remote.ip' ? remoteIp : destinationIp;
    const bytes = text === undefined ? undefined : parseAddress(text);
    if (bytes === undefined) return undefined;
    return predicate.matches.some((block) => isInCidr(canonicalAddress(bytes), block)) !== negated;
  }
  if (predicate.kind === 'token') {
    const { claims } = request.context;
    if (claims === undefined) return undefined;
    const [issuer, subject] = [claims?.get('iss'), claims?.get('sub')];
    if (typeof issuer !== 'string' || typeof subject !== 'string') return isMissing;
    const fits = predicate.matches.some(
      (match) => compare(match.issuer, issuer) && compare(match.subject, subject),
    );
    return fits !== negated;
  }
  if (predicate.kind === 'metadata') {
    const [filter = '', key = ''] = predicate.names;
    const found = request.context.metadata?.get(filter)?.get(key);
    if (found === undefined) return undefined;
    const texts = (Array.isArray(found) ? found : [found]).filter((one) => typeof one === 'string');
    const matches = predicate.matches.filter(({ inList }) => inList === Array.isArray(found));
    if (texts.length === 0 || matches.length === 0) return isMissing;
    const fits = matches.some(({ match }) => texts.some((text) => compare(match, text)));
    return fits !== negated;
  }
  const having = read(mesh, predicate, request);
  if (having === undefined) return undefined;
  const fits = (text: string): boolean => predicate.matches.some((match) => compare(match, text));
  if (having === null || having.length === 0) return isMissing;
  if (typeof having === 'string') return fits(having) !== negated;
  if (attribute !== 'request.headers') return having.some(fits) !== negated;
  // Whether an empty line is there for `*` is read in both ways, so it speaks against the caller.
  const isAnything = predicate.matches.some(({ kind }) => kind === 'present');
  const speaks = (line: string): boolean =>
    line === '' && isAnything ? action !== 'ALLOW' : fits(line) !== negated;
  // Every line must speak for an ALLOW; one is enough for whatever restricts.
  return action === 'ALLOW' ? having.every(speaks) : having.some(speaks);
}

function read(mesh: SnapshotInput, { attribute, names }: Predicate, request: AuthzRequest): Having {
  const { source, context } = request;
  const own = source !== null && source.trustDomain.name === mesh.trustDomain.name;
  const kubernetes = own ? kubernetesNames(source) : undefined;
  if (attribute === 'source.principal') return source?.text.replace('spiffe://', '');
  if (attribute === 'source.namespace') return kubernetes?.namespace;
  if (attribute === 'source.serviceAccount') {
    return kubernetes && `${kubernetes.namespace}/${kubernetes.serviceAccount}`;
  }
  if (attribute === 'source.trustDomain') return source?.trustDomain.name;
  if (attribute === 'request.method') return request.method === '' ? undefined : request.method;
  if (attribute === 'request.path') return request.path === '' ? undefined : request.path;
  if (attribute === 'connection.sni') {
    const name = context.sni?.toLowerCase();
    return name !== undefined && /^[a-z0-9._-]*$/.test(name) ? name.replace(/\.$/, '') : undefined;
  }
  if (attribute === 'request.headers') {
    const lines = context.headerLines?.(names[0] ?? '');
    const isPlain = lines?.every((line) => /^[\t -~]*$/.test(line));
    return isPlain === true ? lines?.map(trimSpaces) : undefined;
  }
  const way = { 'request.auth.audiences': ['aud'], 'request.auth.presenter': ['azp'] }[attribute as string];
  return readClaim(context.claims, way ?? names);
}

function readClaim(claims: AuthzRequest['context']['claims'], way: readonly string[]): Having {
  if (claims === undefined || claims === null) return claims;
  const found = way.reduce<unknown>((value, name) => {
    if (value instanceof Map) return value.get(name);
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    return isObject ? new Map(Object.entries(value)).get(name) : undefined;
  }, claims);
  if (Array.isArray(found)) return found.filter((one) => typeof one === 'string');
  if (typeof found !== 'string') return null;
  const isSpaced = way.length === 1 && (way[0] === 'scope' || way[0] === 'permission');
  return isSpaced ? found.split(' ').filter((part) => part !== '') : [found];
}

function compare(match: TextMatch, text: string): boolean {
  if (match.kind === 'present') return text !== '';
  if (match.kind === 'template') return compileTemplate(match.text)(text);
  if (match.kind === 'prefix') return text.startsWith(match.text);
  return match.kind === 'suffix' ? text.endsWith(match.text) : text === match.text;
}
