import { existsSync } from 'node:fs';
import { Command } from 'commander';
import { defaultDataDirectory } from '../config-places.ts';
import type { StatusReport } from '../http/status-report.ts';
import type { Travelled } from '../http/travelled.ts';
import {
  type AgentStatusAnswer,
  formatAgentStatus,
  formatOutlooks,
  formatSeconds,
  policyRevisionPairs,
  sourcePairs,
} from './agent-status-text.ts';
import { type AdminClient, openAdminClient } from './client.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { proxyPairs } from './proxy-text.ts';
import { print, type Session } from './session.ts';
import { count, formatPairs } from './text.ts';

/** A report as it travels: times are text. */
export type StatusAnswer = Travelled<StatusReport>;

/** `countersign status`. */
export function statusCommand(session: Session): Command {
  return new Command('status')
    .description('show whether the server, or the agent, is ready, what it serves, and what goes dark first')
    .addHelpText(
      'after',
      examples('status', 'status -o json', 'status --data-dir /var/lib/countersign-agent'),
    )
    .action(async (_options, command: Command) => {
      const status = await statusClient(session, command).get<StatusAnswer | AgentStatusAnswer>('/v1/status');
      print(session, command, status, () =>
        'kind' in status ? formatAgentStatus(status) : formatStatus(status),
      );
    });
}

/** Where nothing says whom to ask and no server is here, the agent of this machine is asked. */
function statusClient(session: Session, command: Command): AdminClient {
  const options = globalOptions(command);
  const client = openAdminClient(options, session);
  const isNamed =
    options.server !== undefined ||
    options.socket !== undefined ||
    options.dataDir !== undefined ||
    options.config !== undefined ||
    ['COUNTERSIGN_SERVER', 'COUNTERSIGN_ADMIN_SOCKET', 'COUNTERSIGN_DATA_DIR', 'COUNTERSIGN_CONFIG'].some(
      (name) => session.environment[name] !== undefined,
    );
  if (isNamed || existsSync(client.address)) return client;
  const agent = openAdminClient({ ...options, dataDir: `${defaultDataDirectory(session)}-agent` }, session);
  return existsSync(agent.address) ? agent : client;
}

/** The status as people read it. */
export function formatStatus(status: StatusAnswer): string {
  const pairs = formatPairs([
    ['trust domain', status.trustDomain],
    ['state', status.ready ? 'ready' : `not ready: ${status.causes.join('; ')}`],
    ...status.warnings.map((warning) => ['warning', warning] as const),
    ...ofMachine(['workload socket', status.workloadSocket]),
    ['admin socket', status.adminSocket],
    ['admin URL', status.adminUrl ?? 'off'],
    ...(status.nodeAddress === null ? [] : [['node API', status.nodeAddress] as const]),
    ['trust endpoint', trustEndpointText(status.trustEndpoint)],
    ['data', status.dataDir],
    ['keys', status.custody],
    ...ofMachine(['attestation', status.attestation]),
    ...sourcePairs(status.sources),
    ...status.authorities.map(({ kind, notAfter }) => [`${kind} CA`, `until ${notAfter}`] as const),
    [
      'mesh',
      `revision ${status.revision}: ${count(status.entries, 'entry', 'entries')}, ${count(status.policies, 'policy', 'policies')}`,
    ],
    ...policyRevisionPairs(status.policyRevision, status.policyMode),
    ...rolloutPairs(status.policyRollout),
    ...status.breakGlass.map((grant) => ['break glass', grant] as const),
    ['audit log', `${status.auditSize} records`],
    ...ofMachine(['streams', `${status.streams}`]),
    ...proxyPairs(status),
    ...nodesPairs(status),
    ['version', `${status.version}, up since ${status.startedAt}`],
  ]);
  return pairs + formatOutlooks(status);

  /** What a server for nodes has none of: its agents serve the workloads. */
  function ofMachine(pair: readonly [string, string]): readonly (readonly [string, string])[] {
    return status.serves === 'nodes' ? [] : [pair];
  }
}

function rolloutPairs(
  // An older server says nothing of it.
  rollout: StatusAnswer['policyRollout'] | undefined,
): readonly (readonly [string, string])[] {
  if (rollout === null || rollout === undefined) return [];
  const { id, base, stage, percent, judged, newlyDenied, newlyAllowed } = rollout;
  const share = stage === 'canary' ? `, ${percent}% of the workloads` : '';
  const calls = `${count(judged, 'call', 'calls')} judged, ${newlyDenied} newly denied, ${newlyAllowed} newly allowed`;
  return [['policy rollout', `${id.slice(0, 8)} beside revision ${base}: ${stage}${share}; ${calls}`]];
}

function nodesPairs({ nodes, now }: StatusAnswer): readonly (readonly [string, string])[] {
  const { attested, connected, laggard } = nodes;
  if (attested === 0) return [];
  const behind = laggard === null ? 0 : (Date.parse(now) - Date.parse(laggard.behindSince)) / 1_000;
  return [
    ['nodes', `${attested} attested, ${connected} connected`],
    ...(laggard === null
      ? []
      : [
          [
            'laggard',
            `${laggard.name}, ${laggard.connected ? 'connected' : 'away'}, without its latest view for ${formatSeconds(Math.max(0, behind))}`,
          ] as const,
        ]),
  ];
}

function trustEndpointText(endpoint: StatusAnswer['trustEndpoint']): string {
  if (endpoint === null) return 'off';
  return `${endpoint.url} (${[endpoint.profile, endpoint.spiffeId ?? ''].join(' ').trim()})`;
}
