import { expect } from 'vitest';
import { settle } from '../harness/manual-clock.ts';
import { inspect, type Line, type Mesh, type Message, type World } from './xds-world.ts';

/** What one client of the model asks for and has; what it is sent is held against this. */
export type Client = {
  readonly isDelta: boolean;
  readonly isAggregated: boolean;
  line: Line | undefined;
  hasAsked: boolean;
  names: Set<string>;
  /** What it has in use, or says it has: kept over streams, as Envoy does. */
  has: Map<string, string>;
  /** Of what it has, what this stream knows of. */
  proven: Set<string>;
  pending: Message | undefined;
  last: Message | undefined;
  lastRequest: Parameters<Line['send']>[0];
  /** Names asked for since they were sent last; for state of the world, whether the set has changed. */
  owed: Set<string>;
  /** State of the world: what was refused as a whole. Incremental: by name. */
  refusedWorld: string | undefined;
  refused: Map<string, string>;
  suspects: Map<string, string>;
  isStalled: boolean;
  /** Whether anything has changed since the response that waits for its answer. */
  hasNews: boolean;
};

export function createClient(isDelta: boolean, isAggregated: boolean): Client {
  return { ...fresh(), isDelta, isAggregated, line: undefined, names: new Set(), has: new Map() };
}

function fresh() {
  return {
    hasAsked: false,
    proven: new Set<string>(),
    pending: undefined,
    last: undefined,
    lastRequest: {},
    owed: new Set<string>(),
    refusedWorld: undefined,
    refused: new Map<string, string>(),
    suspects: new Map<string, string>(),
    isStalled: false,
    hasNews: false,
  };
}

/** Opens a stream and asks for its names, with or without what it has from before. */
export function connect(client: Client, world: World, names: readonly string[], withVersions: boolean): void {
  const versionInfo = client.last?.version ?? '';
  Object.assign(client, fresh(), { names: new Set(names), hasAsked: true });
  client.line = world.open(client.isDelta, client.isAggregated);
  const claimed = names.filter((name) => withVersions && client.has.has(name));
  client.has = new Map(claimed.map((name) => [name, client.has.get(name) ?? '']));
  for (const name of names) if (!client.has.has(name)) client.owed.add(name);
  if (!client.isDelta) client.owed.add('any');
  const initialResourceVersions = Object.fromEntries(client.has);
  say(client, {
    resourceNames: [...names],
    resourceNamesSubscribe: [...names],
    ...(withVersions ? { initialResourceVersions, versionInfo } : {}),
  });
}

/** Changes what it asks for, with a nonce that answers nothing. */
export function change(client: Client, names: ReadonlySet<string>, nonce: string): void {
  const added = [...names].filter((name) => !client.names.has(name));
  const gone = [...client.names].filter((name) => !names.has(name));
  // State of the world: a stale nonce takes its names with it.
  if (client.isDelta || nonce === '') adopt(client, names, added, gone);
  say(client, {
    resourceNames: [...names],
    resourceNamesSubscribe: added,
    resourceNamesUnsubscribe: gone,
    responseNonce: nonce,
  });
}

/** Asks for names that it asks for already. */
export function askAgain(client: Client): void {
  const names = [...client.names];
  if (client.isDelta) for (const name of names) client.owed.add(name);
  if (client.isDelta) client.hasNews = true;
  say(client, { resourceNames: names, resourceNamesSubscribe: names });
}

/** Answers the response in flight, and may change what it asks for in the same breath. */
export function answer(client: Client, rejection: string | undefined, names = client.names): void {
  const { pending } = client;
  if (pending === undefined) throw new Error('nothing to answer');
  if (rejection === undefined) accept(client, pending);
  else refuse(client, pending);
  const before = client.names;
  const added = [...names].filter((name) => !before.has(name));
  const gone = [...before].filter((name) => !names.has(name));
  adopt(client, names, added, gone);
  client.pending = undefined;
  say(client, {
    resourceNames: [...names],
    resourceNamesSubscribe: added,
    resourceNamesUnsubscribe: gone,
    responseNonce: pending.nonce,
    versionInfo: rejection === undefined ? pending.version : '',
    errorDetail: rejection === undefined ? undefined : { code: 13, message: rejection, details: [] },
  });
}

/** Lets everything come to rest, reads what came, and holds it against what may come. */
export async function observe(client: Client, world: World, mesh: Mesh): Promise<void> {
  await settle();
  const { line } = client;
  if (line === undefined) return;
  const messages = line.take();
  // One response is in flight at a time.
  expect(messages.length + (client.pending === undefined ? 0 : 1)).toBeLessThanOrEqual(1);
  for (const message of messages) {
    expect(message.nonce).not.toBe(client.last?.nonce);
    expect(message.resources.length + message.removed.length).toBeGreaterThan(0);
    for (const one of message.resources) {
      expect(client.names.has(one.name)).toBe(true);
      expect(one.version).toBe(world.version(one.name));
      inspect(one, mesh);
    }
    if (client.isDelta) receiveDelta(client, world, message);
    else receiveWorld(client, world, message);
    client.pending = client.last = message;
    client.hasNews = false;
  }
  for (const name of client.names) {
    if (client.has.has(name) && client.has.get(name) === world.version(name)) client.proven.add(name);
  }
  if (line.ended() !== undefined) client.line = undefined;
  else if (client.pending === undefined && !client.isStalled) expectRest(client, world);
}

/** The identities that this stream was given. */
export function given(client: Client, world: World): ReadonlySet<string> {
  const inFlight = client.pending?.resources ?? [];
  const proven = [...client.proven].map((name) => ({ name, version: client.has.get(name) ?? '' }));
  const all = client.isDelta ? [...proven, ...inFlight] : (client.last?.resources ?? []);
  const versions = all.filter(({ name }) => client.names.has(name)).map(({ version }) => version);
  return new Set(versions.flatMap((version) => world.identityOf(version) ?? []));
}

function receiveWorld(client: Client, world: World, message: Message): void {
  const available = [...client.names].filter((name) => world.version(name) !== undefined);
  expect(message.resources.map(({ name }) => name).sort()).toEqual(available.sort());
  expect(message.version).not.toBe(client.refusedWorld);
  // Nothing is said twice, unless what is asked for has changed.
  if (client.owed.size === 0) expect(message.version).not.toBe(client.last?.version);
  client.owed.clear();
  client.refusedWorld = undefined;
}

function receiveDelta(client: Client, world: World, { resources, removed }: Message): void {
  for (const { name, version } of resources) {
    expect(client.refused.get(name)).not.toBe(version);
    if (!client.owed.has(name)) expect(client.has.get(name)).not.toBe(version);
    if (client.suspects.get(name) === version) expect(resources).toHaveLength(1);
    client.owed.delete(name);
  }
  for (const name of removed) {
    expect(world.version(name)).toBeUndefined();
    expect([name, client.names.has(name), client.has.has(name)]).toEqual([name, true, true]);
  }
}

/** At rest a client has everything it may have, but for what it refused. */
function expectRest(client: Client, world: World): void {
  const available = [...client.names].filter((name) => world.version(name) !== undefined);
  if (!client.hasAsked || available.length === 0) return;
  if (!client.isDelta) {
    if (client.refusedWorld !== undefined && client.refusedWorld === client.last?.version) return;
    for (const name of available) expect([name, client.has.get(name)]).toEqual([name, world.version(name)]);
    return;
  }
  for (const name of client.names) {
    const version = world.version(name);
    if (version !== undefined && client.refused.get(name) === version) continue;
    expect([name, client.has.get(name)]).toEqual([name, version]);
    expect([name, client.owed.has(name) && version !== undefined]).toEqual([name, false]);
  }
}

function accept(client: Client, { resources, removed }: Message): void {
  // State of the world: each response holds all there is.
  for (const { name, version } of resources) {
    if (client.isDelta && !client.names.has(name)) continue;
    client.has.set(name, version);
    client.proven.add(name);
    client.refused.delete(name);
    client.suspects.delete(name);
  }
  forget(client, removed);
}

function refuse(client: Client, { version, resources, removed }: Message): void {
  client.refusedWorld = version;
  const [only] = resources;
  for (const one of resources) {
    if (!client.names.has(one.name)) continue;
    if (only === one && resources.length === 1) {
      client.refused.set(one.name, one.version);
      client.suspects.delete(one.name);
    } else client.suspects.set(one.name, one.version);
  }
  forget(client, removed);
}

function adopt(
  client: Client,
  names: ReadonlySet<string>,
  added: readonly string[],
  gone: readonly string[],
): void {
  client.names = new Set(names);
  if (!client.isDelta && added.length + gone.length > 0) client.owed.add('any');
  if (!client.isDelta && names.size === 0) client.refusedWorld = undefined;
  if (added.length + gone.length > 0) client.hasNews = true;
  for (const name of added) if (client.isDelta) client.owed.add(name);
  forget(client, gone);
  for (const name of gone) {
    for (const list of [client.refused, client.suspects]) list.delete(name);
    client.owed.delete(name);
  }
}

function forget(client: Client, names: readonly string[]): void {
  for (const name of names) {
    client.has.delete(name);
    client.proven.delete(name);
  }
}

function say(client: Client, request: Parameters<Line['send']>[0]): void {
  client.lastRequest = request;
  client.line?.send(request);
}
