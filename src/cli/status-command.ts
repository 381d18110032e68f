import { Command } from 'commander';
import type { StatusReport } from '../http/status-report.ts';
import { examples } from './help.ts';
import { clientOf, print, type Session } from './session.ts';
import { formatPairs } from './text.ts';

/** A report as it travels: times are text. */
export type StatusAnswer = Omit<StatusReport, 'startedAt' | 'authorities'> & {
  readonly startedAt: string;
  readonly authorities: readonly {
    readonly kind: string;
    readonly keyId: string;
    readonly notAfter: string;
  }[];
};

/** `countersign status`. */
export function statusCommand(session: Session): Command {
  return new Command('status')
    .description('show whether the server is ready, and what it serves')
    .addHelpText('after', examples('status', 'status -o json', 'status --data-dir ./data'))
    .action(async (_options, command: Command) => {
      const status = await clientOf(session, command).get<StatusAnswer>('/v1/status');
      print(session, command, status, () => formatStatus(status));
    });
}

/** The status as people read it. */
export function formatStatus(status: StatusAnswer): string {
  return formatPairs([
    ['trust domain', status.trustDomain],
    ['state', status.ready ? 'ready' : `not ready: ${status.causes.join('; ')}`],
    ...status.warnings.map((warning) => ['warning', warning] as const),
    ['workload socket', status.workloadSocket],
    ['admin socket', status.adminSocket],
    ['admin URL', status.adminUrl ?? 'off'],
    ['trust endpoint', trustEndpointText(status.trustEndpoint)],
    ['data', status.dataDir],
    ['keys', status.custody],
    ['attestation', status.attestation],
    ...status.authorities.map(({ kind, notAfter }) => [`${kind} CA`, `until ${notAfter}`] as const),
    [
      'mesh',
      `revision ${status.revision}: ${count(status.entries, 'entry', 'entries')}, ${count(status.policies, 'policy', 'policies')}`,
    ],
    ['audit log', `${status.auditSize} records`],
    ['streams', `${status.streams}`],
    ['version', `${status.version}, up since ${status.startedAt}`],
  ]);
}

function trustEndpointText(endpoint: StatusAnswer['trustEndpoint']): string {
  if (endpoint === null) return 'off';
  return `${endpoint.url} (${[endpoint.profile, endpoint.spiffeId ?? ''].join(' ').trim()})`;
}

function count(number: number, one: string, many: string): string {
  return `${number} ${number === 1 ? one : many}`;
}
