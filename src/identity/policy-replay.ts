import type { CallsStep, ReadCalls } from '../audit/calls-question.ts';
import { decidedTypes, keyOfCall, type RecordedCalls, seenTypes } from '../audit/recorded-call.ts';
import type { PolicyMode } from '../authz/policy-mode.ts';
import { placeOfRule, type Rejudged } from '../authz/rejudge.ts';
import { kubernetesNames, SpiffeId } from '../spiffe/id.ts';
import { inBreaths } from './breath.ts';
import type { CurrentMesh, MeshSettings } from './current-mesh.ts';
import type { PolicyHistory } from './policy-edits.ts';
import { numbered } from './questions/answer.ts';
import { type Counted, countAll, type QuestionPorts, windowOf } from './questions/ports.ts';
import type { CallsMeant, PolicyReplay, ReplayEdge, ReplayVerdict } from './replay-answer.ts';
import { type CandidateChoice, makeCandidate } from './replay-candidate.ts';
import { createThens } from './replay-evidence.ts';
import { createReplayJudge, type Judged, type ReplayJudge } from './replay-judge.ts';
import { createReplayTally, type ReplayTally, type ReplayTotals, type TalliedEdge } from './replay-tally.ts';

/** What calls are replayed from. */
export type ReplayPorts = Pick<
  QuestionPorts,
  'now' | 'read' | 'count' | 'current' | 'archive' | 'breathe' | 'isTimeUp'
> & {
  readonly settings: MeshSettings;
  readonly history: PolicyHistory;
  readonly readCalls: ReadCalls;
  /** Whether whoever asked has gone away: then the rest is left undone. */
  readonly isLeft: () => boolean;
};

/**
 * Judges recorded calls anew under other policies. Calls to services that the change does not touch are counted and not read.
 * @param limit the most edges of the answer
 * @returns undefined when whoever asked has gone away
 * @throws MeshError as `makeCandidate` does, and `store_unavailable`
 */
export async function replayPolicies(
  choice: CandidateChoice,
  meant: CallsMeant,
  limit: number,
  ports: ReplayPorts,
): Promise<PolicyReplay | undefined> {
  const now = ports.now();
  const current = ports.current();
  const { settings, history, breathe } = ports;
  const candidate = await makeCandidate(current, choice, { settings, history, breathe, now });
  const judge = createReplayJudge(current, candidate.mesh, now);
  const tally = createReplayTally();
  const work = await replayCalls(meant, { ports, judge, tally });
  if (ports.isLeft()) return undefined;
  const { edges, beyond } = tally.edges();
  const shown: ReplayEdge[] = [];
  for (const edge of edges.slice(0, limit))
    shown.push(await edgeOf(edge, current, candidate.mesh, judge, ports));
  const { coverage, head } = await ports.read({
    types: ['lifecycle'],
    limit: 1,
    ...windowOf({ since: meant.since, until: meant.until }),
  });
  const { mesh: _mesh, ...told } = candidate;
  const totals = { ...tally.totals(), notHeld: work.notHeld, seen: work.seen };
  return {
    candidate: told,
    mode: candidate.mesh.snapshot.mode,
    since: meant.since,
    until: meant.until ?? now,
    totals,
    edges: shown,
    moreEdges: edges.length - shown.length,
    beyond,
    complete: work.complete,
    missing: missingOf(work, totals, meant, candidate.mesh.snapshot.mode),
    coverage,
    head,
  };
}

type Work = {
  readonly complete: boolean;
  readonly notHeld: number;
  readonly seen: number;
  /** The oldest that was judged when the time was up. */
  readonly reached: Date | null;
};

type Parts = { readonly ports: ReplayPorts; readonly judge: ReplayJudge; readonly tally: ReplayTally };

async function replayCalls(asked: CallsMeant, parts: Parts): Promise<Work> {
  const { ports, judge, tally } = parts;
  const decided = await countBy(['destination'], decidedTypes, asked, ports);
  let counted = 0;
  const affected: string[] = [];
  for (const { of, count } of decided.counts) {
    const destination = of['destination'] ?? '';
    if (!isMeant(destination, asked)) continue;
    await ports.breathe();
    if (!judge.isAffected(destination)) tally.unchanged(count);
    else {
      affected.push(destination);
      counted += count;
    }
  }
  // There are too many to count by their names: each is met when its calls are read.
  if (!decided.isWhole) {
    const { complete, reached } = await walk('decided', null, (call) => isMeant(call, asked), asked, parts);
    return { complete, notHeld: 0, seen: 0, reached };
  }
  const before = tally.totals().calls;
  let complete = true;
  let reached: Date | null = null;
  // An index leads to the calls of one service. Of many all calls are looked at once.
  const rounds = affected.length <= maxRounds ? affected.map((one) => [one]) : [affected];
  for (const some of rounds) {
    const done = await walk('decided', some, () => true, asked, parts);
    complete &&= done.complete;
    reached = done.reached ?? reached;
    if (!done.complete) break;
  }
  const judged = tally.totals().calls - before;
  const seen = complete ? await replaySeen(asked, parts) : 0;
  return { complete, notHeld: complete ? Math.max(0, counted - judged) : 0, seen, reached };
}

/** Calls that a proxy told of and that the log has no decision about, of the same caller and callee in this time. */
async function replaySeen(asked: CallsMeant, parts: Parts): Promise<number> {
  const { ports, judge, tally } = parts;
  const pairs = ['source', 'destination'];
  const decided = await countBy(pairs, decidedTypes, asked, ports);
  const seen = await countBy(pairs, seenTypes, asked, ports);
  if (!decided.isWhole || !seen.isWhole) return 0;
  const nameOf = (source: string, destination: string): string => `${source} ${destination}`;
  const known = new Set(decided.counts.map(({ of }) => nameOf(of['source'] ?? '', of['destination'] ?? '')));
  const affected = new Set<string>();
  let sum = 0;
  for (const { of, count } of seen.counts) {
    const [source, destination] = [of['source'] ?? '', of['destination'] ?? ''];
    if (!isMeant(destination, asked) || known.has(nameOf(source, destination))) continue;
    sum += count;
    if (judge.isAffected(destination)) affected.add(destination);
    else tally.unchanged(count);
  }
  if (affected.size > 0) {
    const isTold = ({ source, destination }: { source: string; destination: string }): boolean =>
      !known.has(nameOf(source, destination));
    await walk('seen', [...affected], (destination, source) => isTold({ source, destination }), asked, parts);
  }
  return sum;
}

async function walk(
  of: 'decided' | 'seen',
  destinations: readonly string[] | null,
  isWanted: (destination: string, source: string) => boolean,
  { since, until, mayReadPersonal }: CallsMeant,
  { ports, judge, tally }: Parts,
): Promise<Pick<Work, 'complete' | 'reached'>> {
  const { breathe, isLeft, isTimeUp } = ports;
  const reads = destinations === null ? null : await inBreaths(judge.reads(destinations), breathe);
  const isRead = (attribute: 'request.path' | 'source.ip' | 'remote.ip'): boolean =>
    mayReadPersonal && (reads === null || reads === undefined || reads.has(attribute));
  const wanted = {
    // Istio's proxies answer some paths before any policy does.
    path: isRead('request.path') || (mayReadPersonal && ports.settings.policyMode === 'istio'),
    address: isRead('source.ip') || isRead('remote.ip'),
  };
  const thenOf = createThens(ports.archive);
  const verdicts = new Map<string, Judged>();
  const read = (below: number | null): Promise<CallsStep> =>
    ports.readCalls({ of, since, until, destinations, wanted, below });
  let reached: Date | null = null;
  for (let reading: Promise<CallsStep> | null = read(null); reading !== null;) {
    const step: CallsStep = await reading;
    const isOver = step.next === null;
    const isEnough = !isOver && (isLeft() || isTimeUp());
    // The thread that reads goes on while calls are judged here.
    reading = isOver || isEnough ? null : read(step.next);
    // Whoever leaves the loop leaves it.
    reading?.catch(() => undefined);
    for (const calls of step.groups) {
      if (!isWanted(calls.call.destination, calls.call.source)) continue;
      const judged = await judgeOnce(calls);
      if (judged === undefined) return { complete: false, reached };
      if (judged === 'same') tally.unchanged(calls.count);
      else tally.add({ ...judged, calls, path: judged.path ?? pathOf(calls.call) });
      reached = earlier(reached, calls.lastMs);
    }
    if (isEnough) return { complete: false, reached };
  }
  return { complete: true, reached: null };

  /** What no rule reads was not read. */
  function pathOf({ kind, protocol }: RecordedCalls['call']): string | null {
    return kind === 'decision' && protocol === 'http' && mayReadPersonal && !wanted.path ? '*' : null;
  }

  async function judgeOnce(calls: RecordedCalls): Promise<Judged | undefined> {
    const key = keyOfCall(calls.call);
    const known = verdicts.get(key);
    if (known !== undefined) return known;
    const then = await thenOf(calls.call.revision);
    const judged = await inBreaths(judge.judge(calls, then), breathe, () => !isLeft());
    if (judged === undefined) return undefined;
    // INVARIANT: what callers can make up does not fill the memory.
    if (verdicts.size >= maxVerdicts) verdicts.clear();
    verdicts.set(key, judged);
    return judged;
  }
}

function earlier(a: Date | null, ms: number): Date {
  return a === null || ms < a.getTime() ? new Date(ms) : a;
}

function countBy(
  by: readonly string[],
  types: readonly string[],
  { since, until, destination }: CallsMeant,
  ports: ReplayPorts,
): Promise<Counted> {
  const only = destination === null ? {} : { destination };
  return countAll(ports, by, { types, ...only, ...windowOf({ since, until }) });
}

function isMeant(destination: string, { destination: only, namespace }: CallsMeant): boolean {
  if (only !== null && destination !== only) return false;
  return namespace === null || namespaceOf(destination) === namespace;
}

function namespaceOf(text: string): string | undefined {
  try {
    return kubernetesNames(SpiffeId.parse(text))?.namespace;
  } catch {
    return undefined;
  }
}

async function edgeOf(
  edge: TalliedEdge,
  current: CurrentMesh,
  candidate: CurrentMesh,
  { after }: ReplayJudge,
  { breathe }: ReplayPorts,
): Promise<ReplayEdge> {
  const { calls, recorded, example, path } = edge;
  const { source, destination, protocol, method, port } = calls.call;
  const isNear = edge.after?.reason === 'no_allow_rule' && example !== null;
  const nearest = isNear ? await inBreaths(after.nearest(example), breathe) : null;
  return {
    ...{ class: edge.class, source, destination, protocol, method, path, port },
    calls: calls.count,
    records: calls.records,
    first: new Date(calls.firstMs),
    last: new Date(calls.lastMs),
    index: calls.lastIndex,
    recorded,
    before: verdictOf(edge.before, current),
    after: verdictOf(edge.after, candidate),
    nearest: nearest ?? null,
    dependsOn: edge.after?.dependsOn ?? [],
  };
}

function verdictOf(judged: Rejudged | null, { snapshot }: CurrentMesh): ReplayVerdict | null {
  if (judged === null) return null;
  const { verdict, reason, rule } = judged;
  return { verdict, reason, rule, place: rule === '' ? '' : placeOfRule(snapshot, rule) };
}

function missingOf(
  { complete, reached, notHeld, seen }: Work,
  { calls, unknown }: ReplayTotals,
  { mayReadPersonal }: CallsMeant,
  mode: PolicyMode,
): readonly string[] {
  return [
    ...(calls === 0 ? ['any call: the log of that time has none, so nothing is shown'] : []),
    ...(complete
      ? []
      : [
          reached === null
            ? 'the time was up before a call was judged: ask for a shorter time, or for one service'
            : `calls before ${reached.toISOString()}: the time was up; ask for a shorter time, or for one service`,
        ]),
    ...(notHeld > 0
      ? [
          `${numbered(notHeld, 'call')} that ${notHeld === 1 ? 'was' : 'were'} counted and whose records are kept no longer`,
        ]
      : []),
    ...(seen > 0
      ? [`decisions about ${numbered(seen, 'call')}: proxies alone told of them, without path and host`]
      : []),
    ...(mayReadPersonal
      ? []
      : ['paths and addresses of denied calls: they take the permission audit:personal']),
    ...(unknown > 0 && mode === 'istio'
      ? [
          'what becomes of counted calls to services that are concerned: in Istio mode the paths as sent decide',
        ]
      : []),
    'bans of certificates and of keys; calls that were not made',
  ];
}

const maxRounds = 8;
const maxVerdicts = 20_000;
