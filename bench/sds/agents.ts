// Many agents in a process of its own, told what to do over IPC: each with a certificate of its own, a connection of its
// own from an address of its own, and a certificate for each entry of its view. The link with its back-off, the signer and the
// keeper are those of the product; what is left out are the doors for workloads, and the disk.
import { AsyncLocalStorage } from 'node:async_hooks';
import net, { type Socket, type TcpNetConnectOpts } from 'node:net';
import { systemClock } from '../../src/clock.ts';
import { publicError } from '../../src/errors.ts';
import { compileStoredMesh, createMeshHolder } from '../../src/identity/current-mesh.ts';
import { createKeeper } from '../../src/identity/keeper.ts';
import { createTurns } from '../../src/identity/turns.ts';
import { openNodeLink } from '../../src/node/node-link.ts';
import { createRemoteSigner } from '../../src/node/remote-signer.ts';
import { learnServer, parseJoinSecret, type ServerTrust } from '../../src/node/server-trust.ts';
import type { NodeView } from '../../src/identity/view.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { generateP256 } from '../../src/up-key-pair.ts';

/** What the process is told. */
export type ToAgents =
  | {
      readonly kind: 'join';
      readonly port: number;
      readonly joins: readonly Join[];
      /** Whether each gets a certificate for each entry, too. */
      readonly holds: boolean;
    }
  /** From now on it counts who comes back. */
  | { readonly kind: 'mark' }
  | { readonly kind: 'report' }
  /** It answers with the nodes as they are now. */
  | { readonly kind: 'give' };
export type Join = { readonly token: string; readonly address: string };

/** A node that has joined; PEM. */
export type JoinedNode = {
  readonly address: string;
  readonly certificate: string;
  readonly privateKey: string;
};

/** How a crowd of nodes stands; counts of connections are since the mark. */
export type Returned = {
  /** Those whose view is watched. */
  readonly watching: number;
  /** Of each agent that is back: when its view came, in ms of the wall clock. */
  readonly backAtMs: readonly number[];
  readonly connections: number;
  /** Connections that came about and were given up, by the agent or by the server. */
  readonly inVain: number;
  readonly standing: number;
  /** The most connections that stood at once while their agent had no view. */
  readonly mostWaiting: number;
  /** The first of each kind of failure, and how many. */
  readonly failures: Readonly<Record<string, number>>;
};

/** What a process of agents answers `report` with. */
export type FromAgents = Returned & {
  /** Agents that cannot go on by themselves. */
  readonly ended: number;
  /** Certificates held by all of them, and those made since the mark. */
  readonly certificates: number;
  readonly signed: number;
};

let [watching, ended, certificates, signed, connections, inVain, standing, mostWaiting] = Array(8).fill(
  0,
) as [number, number, number, number, number, number, number, number];
let marks = 0;
let backAtMs: number[] = [];
let failures: Record<string, number> = {};

/** One agent as it is while its server is there. */
async function runAgent(
  port: number,
  { token, address }: Join,
  learn: () => Promise<ServerTrust>,
  holds: boolean,
): Promise<void> {
  const { secret } = parseJoinSecret(token);
  let holder: ReturnType<typeof createMeshHolder> | undefined;
  const accept = (view: NodeView): void => {
    const { rootNamespace, ttlSeconds } = view.settings;
    const settings = { trustDomain: TrustDomain.parse(view.settings.trustDomain), rootNamespace, ttlSeconds };
    const next = compileStoredMesh(view.mesh, settings, holder?.current());
    if (holder === undefined) holder = createMeshHolder(next);
    else holder.replace(next);
  };
  const link = await openNodeLink({
    server: { host: '127.0.0.1', port },
    learnTrust: learn,
    evidence: () => ({ kind: 'join_token', secret }),
    kept: null,
    generateKeyPair: generateP256,
    accept,
    agentVersion: 'bench',
    clock: systemClock,
    random: Math.random,
    log: () => undefined,
    signal: new AbortController().signal,
  });
  watching += 1;
  let isCounted = true;
  let countedAt = marks;
  // The link tells of what it has, and not of what it has lost.
  const look = (): void => {
    const now = link.isWatching();
    if (now === isCounted && !(now && countedAt !== marks)) return;
    if (now !== isCounted) watching += now ? 1 : -1;
    isCounted = now;
    if (!now || countedAt === marks) return;
    countedAt = marks;
    backAtMs.push(Date.now());
  };
  link.onChange(look);
  let lastTrouble = link.trouble();
  looks.push(() => {
    if (!link.isWatching()) look();
    // The log says the same once in a minute.
    const trouble = link.trouble();
    if (trouble !== null && trouble !== lastTrouble) count(`${trouble.code}: ${trouble.message}`);
    lastTrouble = trouble;
  });

  nodes.push(() => {
    const { certificates: chain, privateKey } = link.identity();
    return {
      address,
      certificate: chain.map((der) => encodePem('CERTIFICATE', der)).join(''),
      privateKey: encodePem('PRIVATE KEY', privateKey),
    };
  });

  const mesh = holder;
  if (mesh === undefined || !holds) return;
  const signer = createRemoteSigner({
    client: link.client,
    generateKeyPair: generateP256,
    readCsr: () => Promise.reject(new Error('nobody hands in a request')),
    bundle: () => link.view().bundle,
  });
  const keeper = createKeeper({
    issue: async (request) => {
      const issued = await signer.issue(request);
      signed += 1;
      return issued;
    },
    generateKeyPair: signer.generateKeyPair,
    bans: () => mesh.current().bans,
    onChange: mesh.onChange,
    clock: systemClock,
    random: Math.random,
    onFailure: (_entry, error) => {
      count(`certificate: ${publicError(error).code}`);
    },
  });
  // As a stream of a workload would; those of entries that come later are not asked for.
  const caller = { pid: process.pid, uid: 0, gid: 0 };
  const leases = [...link.view().mesh.entries.values()].map((entry) =>
    keeper.hold(entry, { selectors: entry.selectors, caller }, () => undefined),
  );
  counts.push(() => leases.filter((lease) => lease.svid() !== undefined).length);
}

function count(failure: string): void {
  failures[failure] = (failures[failure] ?? 0) + 1;
}

const looks: (() => void)[] = [];
const nodes: (() => JoinedNode)[] = [];
const counts: (() => number)[] = [];
const from = new AsyncLocalStorage<string>();

/** grpc-js has no option for the address that a connection is made from: each agent is a machine of its own. */
function connectFromOwnAddresses(): void {
  const connect = net.connect.bind(net) as (options: TcpNetConnectOpts, onConnect?: () => void) => Socket;
  net.connect = ((options: TcpNetConnectOpts, onConnect?: () => void) => {
    const localAddress = from.getStore();
    const socket = connect(localAddress === undefined ? options : { ...options, localAddress }, onConnect);
    connections += 1;
    socket.once('error', (error) =>
      count(`connection: ${(error as NodeJS.ErrnoException).code ?? error.message}`),
    );
    socket.once('connect', () => {
      standing += 1;
      socket.once('close', () => {
        standing -= 1;
        inVain += 1;
      });
    });
    return socket;
  }) as typeof net.connect;
}

connectFromOwnAddresses();
setInterval(() => {
  for (const look of looks) look();
  mostWaiting = Math.max(mostWaiting, standing - watching);
}, 100);
process.on('message', (message: ToAgents) => {
  if (message.kind === 'join') return void joinAll(message);
  if (message.kind === 'give') return void process.send?.(nodes.map((node) => node()));
  if (message.kind === 'mark') {
    marks += 1;
    [backAtMs, failures] = [[], {}];
    [signed, connections, inVain, mostWaiting] = [0, 0, 0, 0];
    return undefined;
  }
  certificates = counts.reduce((sum, count) => sum + count(), 0);
  return void process.send?.({
    ...{
      watching,
      ended,
      certificates,
      signed,
      backAtMs,
      connections,
      inVain,
      standing,
      mostWaiting,
      failures,
    },
  } satisfies FromAgents);
});

/** A few at a time, as this process has to do the work of all these machines. */
async function joinAll({ port, joins, holds }: Extract<ToAgents, { kind: 'join' }>): Promise<void> {
  const [first] = joins;
  if (first === undefined) return;
  const trust = learnServer(
    { host: '127.0.0.1', port },
    parseJoinSecret(first.token).rootSha256,
    systemClock.now(),
  );
  const turns = createTurns(32);
  const joinOne = (one: Join) =>
    turns(() => from.run(one.address, () => runAgent(port, one, () => trust, holds))).catch(
      (error: unknown) => {
        ended += 1;
        if (ended <= 3) console.error(`failed: ${String(error)}`);
      },
    );
  await Promise.all(joins.map(joinOne));
}
