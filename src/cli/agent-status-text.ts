import type {
  AgentStatusReport,
  SourceReport,
  StatusReport,
  WorkloadOutlook,
} from '../http/status-report.ts';
import type { Travelled } from '../http/travelled.ts';
import { proxyPairs } from './proxy-text.ts';
import { count, formatPairs, formatTable } from './text.ts';

export type AgentStatusAnswer = Travelled<AgentStatusReport>;

/** What an agent tells of itself, as people read it: the workload that goes dark first stands first. */
export function formatAgentStatus(status: AgentStatusAnswer): string {
  const { node, server, policy, events } = status;
  const pairs = formatPairs([
    ['agent', node === null ? 'not attested yet' : `${node.name} (${node.spiffeId})`],
    ['trust domain', status.trustDomain ?? 'not known yet'],
    ['state', status.ready ? 'ready' : `not ready: ${status.causes.join('; ')}`],
    ...status.warnings.map((warning) => ['warning', warning] as const),
    ['server', `${server.address}, ${connectionText(server)}`],
    ...(server.trouble === null ? [] : [['trouble', troubleText(server.trouble)] as const]),
    ['policy', policy === null ? 'none yet' : policyText(policy, server.connected)],
    ...policyRevisionPairs(policy?.revision, policy?.mode),
    ...(node === null ? [] : [['node certificate', nodeText(node)] as const]),
    [
      'mesh',
      `revision ${server.meshRevision}: ${count(status.entries, 'entry', 'entries')}, ${count(status.policies, 'policy', 'policies')}`,
    ],
    ['events', `${events.queued} waiting for the server, ${events.lost} lost`],
    ...sourcePairs(status.sources),
    ['workload socket', status.workloadSocket],
    ['admin socket', status.adminSocket],
    ['metrics', status.metricsUrl === null ? 'on the admin socket' : `${status.metricsUrl}/metrics`],
    ['data', status.dataDir],
    ['streams', `${status.streams}`],
    ...proxyPairs(status),
    ['version', `${status.version}, up since ${status.startedAt}`],
  ]);
  return pairs + formatOutlooks(status);
}

/** The workloads in the order in which they go dark; nothing when there are none. */
export function formatOutlooks({
  workloads,
  workloadsInAll,
}: {
  readonly workloads: readonly Travelled<WorkloadOutlook>[];
  readonly workloadsInAll: number;
}): string {
  if (workloads.length === 0) return '';
  const more = workloadsInAll - workloads.length;
  return [
    '\n',
    formatTable(
      ['DARK IN', 'BY', 'SPIFFE ID', 'SERIAL', 'EXPIRES', 'RENEWED AT', 'FAILURE'],
      workloads.map((workload) => [
        workload.darkInSeconds === 0 ? 'dark' : formatSeconds(workload.darkInSeconds),
        workload.darkBy,
        workload.spiffeId,
        workload.serial === '' ? 'none' : workload.serial,
        workload.expiresAt ?? '',
        workload.renewsAt ?? 'when asked for',
        workload.failure,
      ]),
    ),
    more > 0 ? `and ${more} more\n` : '',
  ].join('');
}

/** The sources of selectors that are asked something outside, or that fail. */
export function sourcePairs(
  sources: readonly Travelled<SourceReport>[],
): readonly (readonly [string, string])[] {
  return sources
    .filter(({ place, state }) => place !== '' || state === 'failing')
    .map((source) => ['attest source', sourceText(source)] as const);
}

/** The policy revision in force; nothing while there is none. */
export function policyRevisionPairs(
  // An older server says nothing of it.
  revision: StatusAnswer['policyRevision'] | undefined,
  mode: StatusAnswer['policyMode'] | undefined,
): readonly (readonly [string, string])[] {
  const number =
    revision === null || revision === undefined ? [] : [`${revision.number} (${revision.id.slice(0, 12)})`];
  const isOpen = mode === 'istio' ? ['Istio mode: what no ALLOW policy is about is allowed'] : [];
  const said = [...number, ...isOpen];
  return said.length === 0 ? [] : [['policy revision', said.join(', ')]];
}

type StatusAnswer = Travelled<StatusReport>;

/** A span of time in its two largest units: `3h 12m`. */
export function formatSeconds(seconds: number): string {
  const units = [
    ['d', 86_400],
    ['h', 3_600],
    ['m', 60],
    ['s', 1],
  ] as const;
  const at = units.findIndex(([, length]) => seconds >= length);
  const [first, second] = units.slice(at === -1 ? units.length - 1 : at);
  if (first === undefined || second === undefined) return `${Math.floor(seconds)}s`;
  const rest = Math.floor((seconds % first[1]) / second[1]);
  return `${Math.floor(seconds / first[1])}${first[0]}${rest === 0 ? '' : ` ${rest}${second[0]}`}`;
}

function connectionText({ connected, since, lastContactAt }: AgentStatusAnswer['server']): string {
  if (connected) return `connected since ${since}`;
  return lastContactAt === null ? 'never reached' : `away since ${since}, last there at ${lastContactAt}`;
}

function troubleText({ code, message, fix }: NonNullable<AgentStatusAnswer['server']['trouble']>): string {
  return `${code}: ${message}${fix === undefined ? '' : `; ${fix}`}`;
}

function policyText(
  { deniesAt, deniesInSeconds, maxStalenessSeconds }: NonNullable<AgentStatusAnswer['policy']>,
  connected: boolean,
): string {
  if (connected)
    return `confirmed now; without the server it counts for ${formatSeconds(maxStalenessSeconds)}`;
  if (deniesInSeconds === 0) return `too old since ${deniesAt}: every call is denied`;
  return `counts for another ${formatSeconds(deniesInSeconds)}; then, at ${deniesAt}, every call is denied`;
}

function nodeText({
  expiresAt,
  expiresInSeconds,
  attestsWith,
}: NonNullable<AgentStatusAnswer['node']>): string {
  const after =
    attestsWith === null ? 'after that it needs a new join token' : `after that it attests by ${attestsWith}`;
  if (expiresInSeconds === 0) return `ended at ${expiresAt}; ${after}`;
  return `until ${expiresAt}: it may come back for another ${formatSeconds(expiresInSeconds)}; ${after}`;
}

function sourceText(source: Travelled<SourceReport>): string {
  const { name, place, state, calls, failures, lastSuccessAt, lastFailureAt, lastFailure } = source;
  const at = place === '' ? '' : ` at ${place}`;
  if (state === 'unused') return `${name}${at}: not asked yet`;
  const success = `last answer ${lastSuccessAt ?? 'never'}`;
  const failure = lastFailureAt === null ? '' : `, last failure ${lastFailureAt}: ${lastFailure}`;
  return `${name}${at}: ${state}, ${calls} questions, ${failures} failures, ${success}${failure}`;
}
