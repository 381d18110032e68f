import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CheckResponse } from '../../src/wire/authz.ts';
import { checkBytes } from '../ext-authz/check-input.ts';
import { sendCheck } from '../harness/check-client.ts';
import { eventually } from '../harness/eventually.ts';
import { type FaultProxy, startFaultProxy, type Weather } from '../harness/fault-proxy.ts';
import { entry, policy } from '../harness/mesh.ts';
import {
  type AgentHere,
  isConnected,
  type ServerHere,
  startAgentHere,
  startServerHere,
} from '../harness/node-mesh.ts';
import { createScope } from '../harness/scope.ts';
import { fetchKeyPair } from '../harness/sds-client.ts';
import { makeTempDir } from '../harness/temp.ts';

// Every fault has an agent of its own, and all of them happen at once: what takes time is to notice that nobody is there.
const scope = createScope();
afterAll(() => scope.close());

const me = 'spiffe://mesh.test/ns/test/sa/me';
let server: ServerHere;

beforeAll(async () => {
  server = await startServerHere(scope, makeTempDir(scope));
  await server.apply(
    [
      entry(me, '/', { selectors: [`unix:uid:${process.getuid?.() ?? 0}`], nodes: ['*'] }),
      policy('test', 'all', { rules: [{}] }),
    ].join(''),
  );
});

const repeatedly = (proxy: FaultProxy): void => {
  const timer = setInterval(proxy.cut, 200);
  scope.defer(() => clearInterval(timer));
  undo.set(proxy, () => clearInterval(timer));
};
const undo = new Map<FaultProxy, () => void>();
const weather =
  (kind: Weather) =>
  (proxy: FaultProxy): void =>
    proxy.set(kind);

test.concurrent.each<{ what: string; spoil: (proxy: FaultProxy) => void; isCut: boolean }>([
  { what: 'a delay of 300 ms each way', spoil: weather({ delayMs: 300 }), isCut: false },
  { what: 'connections that are reset again and again', spoil: repeatedly, isCut: true },
  { what: 'a server that refuses connections', spoil: weather('refuse'), isCut: false },
  {
    what: 'a server that is gone, and refuses connections',
    spoil: (proxy) => {
      proxy.set('refuse');
      proxy.cut();
    },
    isCut: true,
  },
  { what: 'silence', spoil: weather('blackhole'), isCut: true },
  { what: 'half-open connections', spoil: weather('half-open'), isCut: true },
  { what: 'one byte in a second', spoil: weather({ bytesPerSecond: 1 }), isCut: true },
  {
    what: 'a reset in the middle of a frame',
    spoil: (proxy) => {
      proxy.set({ endsAfterBytes: 6_000, by: 'reset' });
      proxy.cut();
    },
    isCut: true,
  },
  {
    what: 'an end in the middle of a frame',
    spoil: (proxy) => {
      proxy.set({ endsAfterBytes: 6_000, by: 'end' });
      proxy.cut();
    },
    isCut: true,
  },
  {
    what: 'an end in the middle of a handshake',
    spoil: (proxy) => {
      proxy.set({ endsAfterBytes: 700, by: 'end' });
      proxy.cut();
    },
    isCut: true,
  },
])(
  'with $what workloads are served and calls are decided, and nothing is lost when it is over',
  async ({ what, spoil, isCut }) => {
    const name = what.replaceAll(/[^a-z0-9]+/g, '-');
    const proxy = await startFaultProxy(scope, server.port);
    const directory = join(makeTempDir(scope), 'a');
    const agent = startAgentHere(scope, {
      directory,
      port: proxy.port,
      token: await server.token(name),
      flags: { allowedCallsWindowSeconds: '1' },
    });
    const running = await agent.started;
    const source = `spiffe://mesh.test/ns/test/sa/${name}`;
    const { cert } = await fetchKeyPair(agent.workloadSocket, me);
    let [asked, answered] = [0, 0];
    const ask = async (): Promise<string> => {
      asked += 1;
      const verdict = await decide(agent, source);
      answered += 1;
      return verdict;
    };
    expect(await ask()).toBe('allow');

    spoil(proxy);
    await server.admin('POST', '/v1/bans', { kind: 'spiffe-id', value: source, reason: 'test' });
    // The silent ones are found by pings, whoever else asks for anything.
    if (isCut) await eventually('the fault to be noticed', () => !isConnected(running), { withinMs: 60_000 });
    for (let count = 0; count < 10; count += 1) {
      expect(await fetchKeyPair(agent.workloadSocket, me)).toMatchObject({ cert });
      expect(['allow', 'deny']).toContain(await ask());
    }
    // Attempts that have come to nothing are given up, with their connections.
    expect(proxy.connections()).toBeLessThan(8);

    undo.get(proxy)?.();
    proxy.set('pass');
    await eventually('the ban', async () => (await ask()) === 'deny', { withinMs: 60_000, everyMs: 500 });
    await eventually('the link', () => isConnected(running), { withinMs: 60_000 });
    expect(await fetchKeyPair(agent.workloadSocket, me)).toMatchObject({ cert });
    const stored = async (): Promise<number> => {
      const events = await server.audit(`type=decision,allowed_calls&source=${encodeURIComponent(source)}`);
      return events.reduce((sum, { count = 1 }) => sum + Number(count), 0);
    };
    await eventually('every decision', async () => (await stored()) >= answered, { withinMs: 60_000 });
    expect(await stored()).toBeLessThanOrEqual(asked);
    expect((await server.audit('type=loss')).filter(({ cause }) => String(cause).includes(name))).toEqual([]);
  },
  180_000,
);

async function decide({ workloadSocket }: AgentHere, principal: string): Promise<'allow' | 'deny'> {
  const bytes = await sendCheck(workloadSocket, checkBytes({ principal, destination: me }));
  return CheckResponse.decode(bytes).status?.code === 0 ? 'allow' : 'deny';
}
