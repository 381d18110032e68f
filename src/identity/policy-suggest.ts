import type { AuditCoverage } from '../audit/coverage.ts';
import type { LogHead } from '../audit/query.ts';
import type { RecordedCalls } from '../audit/recorded-call.ts';
import type { Policy, Rule } from '../authz/policy.ts';
import { createPathPatterns } from '../authz/path-pattern.ts';
import { createRejudge, type Rejudge } from '../authz/rejudge.ts';
import { MeshError } from '../errors.ts';
import { kubernetesNames } from '../spiffe/id.ts';
import { inBreaths } from './breath.ts';
import type { CurrentMesh } from './current-mesh.ts';
import type { ReplayPorts } from './policy-replay.ts';
import { countAll, windowOf } from './questions/ports.ts';
import type { CallsMeant } from './replay-answer.ts';
import { callToRejudge, createReadId } from './replay-call.ts';
import { createThens, showsOf } from './replay-evidence.ts';
import { narrowRule, type NarrowedCall } from './suggest-rules.ts';
import { writeSuggestion } from './suggest-yaml.ts';
import { readLoggedId } from './logged-id.ts';

/** What is suggested for one service. */
export type ServiceSuggestion = {
  /** Its SPIFFE ID. */
  readonly destination: string;
  /** The document; empty when none can be written, and `why` says it. */
  readonly yaml: string;
  /** `namespace/name` of ALLOW policies in whose place it would stand, for this service. */
  readonly replaces: readonly string[];
  /** Recorded calls that it rests on. */
  readonly calls: number;
  /** Allowed calls that are not in it, and why. */
  readonly left: readonly { readonly calls: number; readonly why: string }[];
  readonly why: string;
};

/** Policies that allow what was seen to be allowed, and no more than the policies in force. Nobody has applied them. */
export type PolicySuggestion = {
  readonly since: Date | null;
  readonly until: Date;
  /** In the order of their IDs, at most {@link maxServices}. */
  readonly services: readonly ServiceSuggestion[];
  /** Whether all recorded calls were looked at, and all services are here. */
  readonly complete: boolean;
  readonly missing: readonly string[];
  readonly coverage: AuditCoverage;
  readonly head: LogHead;
};

/**
 * Works out the least that recorded allowed calls need. Each line rests on calls that the policies in force allow: a rule of
 * theirs is narrowed to the callers, methods, ports and paths that were seen, and keeps all else that it demands.
 * @returns undefined when whoever asked has gone away
 * @throws MeshError `policy_mode_inexact` in Istio mode, `store_unavailable`
 */
export async function suggestPolicies(
  meant: CallsMeant,
  ports: ReplayPorts,
): Promise<PolicySuggestion | undefined> {
  const { now: clock, breathe, isLeft, isTimeUp } = ports;
  const [current, now] = [ports.current(), clock()];
  if (current.snapshot.mode === 'istio') {
    throw new MeshError(
      'policy_mode_inexact',
      'nothing is suggested in Istio mode: counts hold no paths as they were sent',
      {
        fix: 'switch to strict mode first; countersign policy lint --istio says what that changes',
      },
    );
  }
  const destinations = await findDestinations(meant, ports);
  const services = destinations.slice(0, maxServices);
  const books = new Map(services.map((one) => [one, createBook()]));
  const rejudge = createRejudge(current.snapshot, now);
  const place = createPlacing(current, rejudge, ports, now);
  let complete = services.length === destinations.length;
  let below: number | null = null;
  for (; services.length > 0;) {
    const { since, until, mayReadPersonal } = meant;
    const wanted = { path: mayReadPersonal, address: false };
    const step = await ports.readCalls({
      of: 'decided',
      since,
      until,
      destinations: services,
      wanted,
      below,
    });
    for (const calls of step.groups) {
      const book = books.get(calls.call.destination);
      if (book !== undefined && calls.call.verdict === 'allow') await place(calls, book);
      if (isLeft()) return undefined;
    }
    below = step.next;
    if (below === null) break;
    if (isTimeUp()) {
      complete = false;
      break;
    }
  }
  const found: ServiceSuggestion[] = [];
  for (const [destination, book] of books) {
    const some = await inBreaths(
      describe(destination, book, current, { since: meant.since, until: meant.until ?? now }),
      breathe,
    );
    if (some !== undefined) found.push(some);
  }
  const { coverage, head } = await ports.read({ types: ['lifecycle'], limit: 1, ...windowOf(meant) });
  return {
    since: meant.since,
    until: meant.until ?? now,
    services: found,
    complete,
    missing: [
      ...(complete
        ? []
        : ['all calls: there are too many services, or the time was up; ask for one service']),
      ...(meant.mayReadPersonal
        ? []
        : ['paths of calls that have a record each: they take the permission audit:personal']),
      'calls that were not made in this time, and those whose records were lost or are kept no longer',
    ],
    coverage,
    head,
  };
}

/** What was seen of one service. */
type Book = {
  /** By the rule in force that allows them. */
  readonly seen: Map<string, NarrowedCall[]>;
  readonly left: Map<string, number>;
  calls: number;
  kinds: number;
};

function createBook(): Book {
  return { seen: new Map(), left: new Map(), calls: 0, kinds: 0 };
}

async function findDestinations(
  { since, until, destination, namespace }: CallsMeant,
  ports: ReplayPorts,
): Promise<readonly string[]> {
  const only = destination === null ? {} : { destination };
  const asked = {
    types: ['decision', 'allowed_calls'],
    verdict: 'allow',
    ...only,
    ...windowOf({ since, until }),
  };
  const { counts } = await countAll(ports, ['destination'], asked);
  return counts
    .map(({ of }) => of['destination'] ?? '')
    .filter((text) => namespace === null || namespaceOf(text) === namespace)
    .sort();
}

/** Puts allowed calls to the rules that allow them now. */
function createPlacing(
  current: CurrentMesh,
  rejudge: Rejudge,
  { archive, breathe }: ReplayPorts,
  now: Date,
): (calls: RecordedCalls, book: Book) => Promise<void> {
  const readId = createReadId();
  const thenOf = createThens(archive);
  const patterns = createPathPatterns();
  const { snapshot } = current;
  const { trustDomain } = snapshot;
  return async (calls, book) => {
    const { call, count } = calls;
    const leave = (why: string): void => {
      book.left.set(why, (book.left.get(why) ?? 0) + count);
    };
    if (call.isBroken) return leave('a break-glass grant let them pass');
    const then = await thenOf(call.revision);
    const known = callToRejudge(call, readId, then.mode, 'strict');
    if (known === undefined || call.source === '')
      return leave('their records do not say who called, or how');
    const judged = await inBreaths(rejudge.judge(known, showsOf(calls, then, current)), breathe);
    if (judged?.verdict === 'deny') return leave('the policies in force deny them by now');
    if (judged?.verdict !== 'allow')
      return leave('whether the policies in force allow them depends on what is not recorded');
    if (book.kinds >= maxKinds) return leave('there are too many kinds of them');
    const rule = findRule(current, judged.rule);
    if (rule === undefined || isBounded(rule.policy))
      return leave('a policy that ends by itself allows them');
    const ofRule = (path: string): string => patterns(snapshot, rule.rule.name, path);
    const narrowed = narrowRule({ rule: rule.rule, trustDomain, ofRule, now }, known, calls);
    if (typeof narrowed === 'string') return leave(narrowed);
    const those = book.seen.get(rule.rule.name) ?? [];
    book.seen.set(rule.rule.name, those);
    those.push(narrowed);
    book.kinds += 1;
    book.calls += count;
  };
}

function findRule(
  { snapshot }: CurrentMesh,
  name: string,
): { readonly policy: Policy; readonly rule: Rule } | undefined {
  const policy = snapshot.policy(name.slice(0, name.lastIndexOf(' ')));
  const rule = policy?.rules.find((one) => one.name === name);
  return policy === undefined || rule === undefined ? undefined : { policy, rule };
}

function isBounded({ terms }: Policy): boolean {
  return terms.breakGlass !== null || terms.bounds.length > 0;
}

function* describe(
  destination: string,
  book: Book,
  current: CurrentMesh,
  window: { readonly since: Date | null; readonly until: Date },
): Generator<void, ServiceSuggestion> {
  const left = [...book.left].map(([why, calls]) => ({ calls, why }));
  const none = (why: string): ServiceSuggestion => ({
    ...{ destination, yaml: '', replaces: [], calls: book.calls, left, why },
  });
  const id = readLoggedId(destination);
  const namespace = id === undefined ? undefined : kubernetesNames(id)?.namespace;
  if (id === undefined || namespace === undefined) return none('its ID names no namespace');
  if (book.calls === 0) return none('no call of it can be suggested');
  const labels = current.snapshot.sharedLabels(id);
  const selector = [['app'], ['app.kubernetes.io/name'], [...labels.keys()].slice(0, maxLabels)]
    .map((names) =>
      names.flatMap((name) => (labels.has(name) ? [[name, labels.get(name) ?? ''] as const] : [])),
    )
    .find((some) => some.length > 0 && !current.snapshot.reachesOthers(id, namespace, some));
  if (selector === undefined)
    return none('no labels of its own tell it from other services: give its entry one');
  yield;
  const policies = current.snapshot.istio.policiesFor(id);
  const replaces = policies
    .filter((policy) => policy.action === 'ALLOW' && !policy.dryRun && !isBounded(policy))
    .map(({ key }) => key);
  const yaml = writeSuggestion({
    ...{ id, namespace, selector, replaces, left, ...window },
    seen: [...book.seen].sort(([a], [b]) => (a < b ? -1 : 1)),
  });
  return typeof yaml === 'string' ? { ...none(''), yaml, replaces } : none(yaml.why);
}

function namespaceOf(text: string): string | undefined {
  const id = readLoggedId(text);
  return id === undefined ? undefined : kubernetesNames(id)?.namespace;
}

/** The most services of one answer. */
export const maxServices = 500;
const maxKinds = 20_000;
const maxLabels = 16;
