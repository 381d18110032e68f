import { z } from 'zod';
import type { EntryView } from '../http/entry-routes.ts';
import type { BanView } from '../http/ban-routes.ts';
import type { NodeView } from '../http/node-routes.ts';
import { keyReportSchema } from '../http/openapi-keys.ts';
import { statusSchema } from '../http/openapi-system.ts';
import type { Page } from '../http/page.ts';
import type { PolicyView } from '../http/policy-routes.ts';
import type { Travelled } from '../http/travelled.ts';
import { type MeshError, quote } from '../errors.ts';
import { version } from '../version.ts';
import { judgeAbsence } from './check-absent.ts';
import { agentStatusSchema, type CheckedAgent, judgeAgent } from './check-agent.ts';
import { checkAdminSocket, checkData, checkWorkloadSocket } from './check-files.ts';
import { judgeEntries, judgeNodes, judgeTokens, readAll } from './check-fleet.ts';
import { shakeHands } from './check-handshake.ts';
import {
  judgeBans,
  judgeCallers,
  judgePolicies,
  judgePolicyMode,
  judgeTerms,
  type LoggedRefusal,
} from './check-mesh.ts';
import { type Answered, askStatus, type CheckPlaces, findPlaces } from './check-probe.ts';
import type { CheckCode, CheckResult } from './check-report.ts';
import { attempt, failed, ok } from './check-result.ts';
import {
  type CheckedStatus,
  judgeClock,
  judgeKeys,
  judgeLife,
  judgeStatus,
  judgeWorkloads,
} from './check-server.ts';
import { checkWorkloadApi } from './check-workload.ts';
import type { AdminClient } from './client.ts';
import type { GlobalOptions } from './global-options.ts';
import { judgeProxies } from './proxy-text.ts';
import type { Session } from './session.ts';

/** Examines what the options name: a server here or elsewhere, an agent, or both of this machine. */
export async function runChecks(
  session: Session,
  options: GlobalOptions,
  now: () => Date,
): Promise<readonly CheckResult[]> {
  let places: CheckPlaces;
  try {
    places = findPlaces(session, options);
  } catch (error) {
    const { message, place, fix = 'see docs/configuration.md' } = error as MeshError;
    const at = place === undefined ? '' : ` (${place.file}:${place.line}:${place.column})`;
    return [failed('config_readable', 'the configuration can be read', `${message}${at}`, fix)];
  }
  const readable = ok('config_readable', 'the configuration can be read');
  const [server, agent] = await Promise.all([
    askStatus(session, options, now),
    places.agentOptions === null ? undefined : askStatus(session, places.agentOptions, now),
  ]);
  const results = [readable];
  const agentHere = agentOf(server) ?? agentOf(agent);
  if ('status' in server) {
    if (agentOf(server) === undefined) results.push(...(await checkServer(places, server, now)));
  } else if (agentHere === undefined) {
    const why = agent !== undefined && !('status' in agent) ? agent : undefined;
    results.push(...judgeAbsence(places, server, why, session.program));
  }
  if (agentHere === undefined) return results;
  const ofAgent = await checkAgent(agentHere, now);
  // Beside a server, what both have is said of whom.
  const isBeside = 'status' in server && agentOf(server) === undefined;
  results.push(...ofAgent.map((one) => (isBeside ? { ...one, text: `agent: ${one.text}` } : one)));
  return results;
}

function agentOf(answered: Answered | MeshError | undefined): CheckedAgent | undefined {
  if (answered === undefined || !('status' in answered)) return undefined;
  return agentStatusSchema.safeParse(answered.status).data;
}

async function checkServer(
  places: CheckPlaces,
  { client, status: told, before, after }: Answered,
  now: () => Date,
): Promise<readonly CheckResult[]> {
  const answers = ok('server_answers', `a server answers at ${client.address}`);
  const parsed = statusSchema.safeParse(told);
  if (!parsed.success) {
    const cause = `${quote(parsed.error.issues[0]?.path.join('.') ?? '')}: ${parsed.error.issues[0]?.message ?? ''}`;
    const fix = 'use the countersign command of the version that the server has';
    return [
      answers,
      failed('server_understood', 'this command understands what the server says', cause, fix),
    ];
  }
  const status = parsed.data;
  const { config } = places;
  const data = config === null ? [] : checkData(status.dataDir);
  const found = new Set(data.filter(({ cause }) => cause !== undefined).map(({ code }) => code));
  return [
    answers,
    ...judgeStatus(status, version, found),
    ...judgeClock(status, before, after),
    ...data,
    ...(config === null ? [] : [checkAdminSocket(status.adminSocket)]),
    ...(await checkKeys(client, now)),
    ...(await checkDoors(places, status, client, now)),
    ...(await checkFleet(status, client, now)),
    ...(config === null || status.serves === 'nodes' ? [] : await checkSocket(status.workloadSocket, now)),
    ...(status.serves === 'nodes'
      ? []
      : [...judgeWorkloads(status), judgeProxies(status, new Date(status.now))]),
  ];
}

async function checkAgent(agent: CheckedAgent, now: () => Date): Promise<readonly CheckResult[]> {
  return [
    ok('agent_answers', `an agent answers at ${agent.adminSocket}`),
    ...judgeAgent(agent, now()),
    ...checkData(agent.dataDir),
    checkAdminSocket(agent.adminSocket),
    ...(await checkSocket(agent.workloadSocket, now)),
    ...judgeWorkloads(agent),
    judgeProxies(agent, now()),
  ];
}

async function checkSocket(path: string, now: () => Date): Promise<readonly CheckResult[]> {
  return [checkWorkloadSocket(path), await checkWorkloadApi(path, answerMs, now())];
}

async function checkKeys(client: AdminClient, now: () => Date): Promise<readonly CheckResult[]> {
  let found: readonly CheckResult[] = [];
  const last = await attempt('issuer_valid', 'the CA says how it stands', async () => {
    found = judgeKeys(keyReportSchema.parse(await client.get('/v1/ca')), now());
    return ok('issuer_valid', '');
  });
  return found.length === 0 ? [last] : found;
}

/** The TLS doors, each with a handshake; what they show has to chain to the bundle that the admin API gives. */
async function checkDoors(
  { config }: CheckPlaces,
  { adminUrl, nodeAddress, trustEndpoint, trustDomain }: CheckedStatus,
  client: AdminClient,
  now: () => Date,
): Promise<readonly CheckResult[]> {
  let ca = '';
  const spiffeId = `spiffe://${trustDomain}/countersign/server`;
  const knock = async (
    code: CheckCode,
    what: string,
    at: HostPort,
    proof: string | null,
  ): Promise<CheckResult> => {
    const text = `${what} proves who it is`;
    return attempt(code, text, async () => {
      if (ca === '') ca = await client.getText('/v1/trust-bundle');
      const alpn = code === 'node_api_tls' ? { alpn: ['h2'] } : {};
      const until = await shakeHands(
        { ...at, ...alpn, proof: proof === null ? null : { ca, spiffeId: proof } },
        answerMs,
      );
      if (until > now()) return ok(code, `${text} (${at.host}:${at.port})`);
      return judgeLife(
        code,
        what,
        { notBefore: '', notAfter: until.toISOString() },
        now(),
        'renew its certificate',
      );
    });
  };
  const results: CheckResult[] = [];
  if (adminUrl !== null) {
    const at = hostPortOf(adminUrl);
    results.push(
      await knock(
        'admin_tls',
        'the admin API over TLS',
        { ...at, host: reachable(config?.adminAddress?.host ?? at.host) },
        spiffeId,
      ),
    );
  }
  // Elsewhere only what is said to listen for everybody can be reached.
  if (config === null) return results;
  if (trustEndpoint !== null) {
    const at = hostPortOf(trustEndpoint.url);
    const host = reachable(config.trustAddress?.host ?? at.host);
    results.push(
      await knock('trust_endpoint_tls', 'the trust endpoint', { ...at, host }, trustEndpoint.spiffeId),
    );
  }
  if (nodeAddress !== null) {
    const at = hostPortOf(`https://${nodeAddress}`);
    results.push(await knock('node_api_tls', 'the node API', { ...at, host: reachable(at.host) }, spiffeId));
  }
  return results;
}

async function checkFleet(
  { serves, policies, policyMode }: CheckedStatus,
  client: AdminClient,
  now: () => Date,
): Promise<readonly CheckResult[]> {
  let entries: readonly CheckResult[] = [];
  const unread = await attempt('entries_last', 'no entry is near its end', async () => {
    const all = await readAll((query) => client.get<Page<EntryView>>('/v1/entries', query));
    entries = [
      ...judgeEntries(all, serves, now()),
      await attempt('entries_unbanned', 'no entry has an identity that is banned', async () =>
        judgeBans(all, await readAll((query) => client.get<Page<Travelled<BanView>>>('/v1/bans', query))),
      ),
      judgePolicies(all.length, policies, policyMode),
    ];
    return ok('entries_last', '');
  });
  return [
    judgePolicyMode(policyMode),
    await attempt('tokens_last', 'no token of the admin API is near its end', async () =>
      judgeTokens(await readAll((query) => client.get<Page<TokenItem>>('/v1/tokens', query)), now()),
    ),
    ...(entries.length === 0 ? [unread] : entries),
    ...(await checkTerms(client, now)),
    await attempt('callers_known', 'whoever asked for an identity lately has an entry', async () => {
      const query = { type: 'refusal', since: '10m', limit: '200' };
      const { items } = await client.get<{ items: readonly LoggedRefusal[] }>('/v1/audit', query);
      return judgeCallers(items, { ownUid: process.getuid?.() ?? 0, serves });
    }),
    ...(serves === 'machine'
      ? []
      : [
          await attempt('nodes_seen', 'every node has renewed its certificate in time', async () =>
            judgeNodes(
              await readAll((query) => client.get<Page<Travelled<NodeView>>>('/v1/nodes', query)),
              now(),
            ),
          ),
        ]),
  ];
}

async function checkTerms(client: AdminClient, now: () => Date): Promise<readonly CheckResult[]> {
  let found: readonly CheckResult[] = [];
  const last = await attempt('policies_last', 'no policy is near its end', async () => {
    const policies = await readAll((query) => client.get<Page<PolicyView>>('/v1/policies', query));
    found = judgeTerms(policies, now());
    return ok('policies_last', '');
  });
  return found.length === 0 ? [last] : found;
}

type HostPort = { readonly host: string; readonly port: number };
type TokenItem = { readonly id: string; readonly label: string; readonly expiresAt: string };

function hostPortOf(url: string): HostPort {
  const { hostname, port } = z
    .url()
    .transform((text) => new URL(text))
    .parse(url);
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port === '' ? 443 : port) };
}

/** Who listens everywhere listens here. */
function reachable(host: string): string {
  return host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
}

const answerMs = 5_000;
