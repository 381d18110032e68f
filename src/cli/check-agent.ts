import { z } from 'zod';
import { proxySchema, sourceSchema, workloadSchema } from '../http/openapi-system.ts';
import { count, time } from '../http/openapi-route.ts';
import type { CheckResult } from './check-report.ts';
import { failed, ok, skipped, span, warning } from './check-result.ts';

/** Of an agent's `GET /v1/status`, as far as checks go by it. */
export const agentStatusSchema = z.object({
  kind: z.literal('agent'),
  version: z.string(),
  ready: z.boolean(),
  causes: z.array(z.string()),
  dataDir: z.string(),
  workloadSocket: z.string(),
  adminSocket: z.string(),
  streams: count,
  workloads: z.array(workloadSchema),
  workloadsInAll: count,
  sources: z.array(sourceSchema),
  // An older agent says nothing of them.
  proxies: z.array(proxySchema).optional(),
  proxiesInAll: count.optional(),
  node: z.object({ name: z.string(), expiresAt: time, attestsWith: z.string().nullable() }).nullable(),
  server: z.object({
    address: z.string(),
    connected: z.boolean(),
    since: time,
    trouble: z.object({ code: z.string(), message: z.string(), fix: z.string().optional() }).nullable(),
  }),
  policy: z
    .object({ maxStalenessSeconds: z.number(), deniesAt: time, deniesInSeconds: z.number() })
    .nullable(),
  events: z.object({ queued: count, lost: count }),
});

export type CheckedAgent = z.output<typeof agentStatusSchema>;

/** What an agent says of itself. */
export function judgeAgent(agent: CheckedAgent, now: Date): readonly CheckResult[] {
  const { node, server, policy, events } = agent;
  const serverText = `the agent is connected to ${server.address}`;
  const trouble = server.trouble;
  return [
    agent.ready
      ? ok('agent_ready', 'the agent serves the workloads of this machine')
      : failed(
          'agent_ready',
          'the agent serves the workloads of this machine',
          agent.causes.join('; '),
          trouble?.fix ?? seeLog,
        ),
    server.connected
      ? ok('agent_connected', serverText)
      : failed(
          'agent_connected',
          serverText,
          `it is away since ${server.since}${trouble === null ? '' : `: ${trouble.message}`}`,
          trouble?.fix ?? 'check that the server runs there, and the network between',
        ),
    node === null
      ? skipped('agent_certificate', 'the agent was not attested yet')
      : judgeCertificate(node, server.connected, now),
    policy === null
      ? skipped('agent_policy_fresh', 'the agent has no policy yet')
      : judgePolicy(policy, server.connected),
    events.lost > 0
      ? warning(
          'agent_events_sent',
          'what the agent records reaches the log',
          `${events.lost} records were lost since its start`,
          'see countersign audit list --type loss on the server',
        )
      : ok('agent_events_sent', `what the agent records reaches the log (${events.queued} on their way)`),
  ];
}

function judgeCertificate(
  { name, expiresAt, attestsWith }: NonNullable<CheckedAgent['node']>,
  isConnected: boolean,
  now: Date,
): CheckResult {
  const text = `the node ${name} has a certificate that counts`;
  const leftMs = Date.parse(expiresAt) - now.getTime();
  const again =
    attestsWith === null
      ? 'give it a new join token: countersign node token create'
      : 'let it reach the server again';
  if (leftMs <= 0) return failed('agent_certificate', text, `it ended at ${expiresAt}`, again);
  // Connected, it renews at half of its life.
  if (isConnected || leftMs > soonMs) return ok('agent_certificate', text);
  return warning('agent_certificate', text, `it ends in ${span(leftMs)}`, again);
}

function judgePolicy(
  { maxStalenessSeconds, deniesAt, deniesInSeconds }: NonNullable<CheckedAgent['policy']>,
  isConnected: boolean,
): CheckResult {
  const text = 'the policy of the agent is fresh';
  const fix = 'bring the connection to the server back';
  if (deniesInSeconds <= 0)
    return failed('agent_policy_fresh', text, `every call is denied since ${deniesAt}`, fix);
  if (isConnected || deniesInSeconds * 2 > maxStalenessSeconds) return ok('agent_policy_fresh', text);
  return warning('agent_policy_fresh', text, `every call is denied in ${span(deniesInSeconds * 1_000)}`, fix);
}

const seeLog = 'see the log of the agent';
const soonMs = 4 * 3_600_000;
