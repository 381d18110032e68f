import { join } from 'node:path';
import { type Child, startChild } from './child.ts';
import { eventually, GaveUp } from './eventually.ts';
import { ask } from './http.ts';
import type { Scope } from './scope.ts';

/** `countersign up` as a process of its own. */
export type Authority = {
  readonly trustDomain: string;
  readonly workloadSocket: string;
  readonly adminSocket: string;
  readonly child: () => Child;
  /** Applies documents of entries and policies. @throws Error with the answer when it is refused */
  readonly apply: (documents: string) => Promise<void>;
  readonly deletePolicy: (key: string) => Promise<void>;
  readonly deleteEntry: (id: string) => Promise<void>;
  readonly ban: (kind: string, value: string) => Promise<void>;
  readonly unban: (kind: string, value: string) => Promise<void>;
  /** Events of the audit log, oldest first, for example `type=decision&verdict=deny`. */
  readonly audit: (query: string) => Promise<readonly Record<string, unknown>[]>;
  /** Makes a join token for a node; the text of it. */
  readonly joinToken: (node: string) => Promise<string>;
  readonly evict: (node: string) => Promise<void>;
  readonly nodes: () => Promise<readonly Record<string, unknown>[]>;
  /** SIGKILL: no draining, no goodbye. */
  readonly kill: () => Promise<void>;
  /** SIGTERM; resolves when it has ended in order. */
  readonly stop: () => Promise<void>;
  /** Starts it again on the same data; resolves when it is ready. */
  readonly restart: () => Promise<void>;
};

export type AuthorityOptions = {
  readonly directory: string;
  readonly trustDomain?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** A command that runs the authority in its place, with the same pid; for example in a namespace of its own. */
  readonly wrapper?: readonly string[];
  /** Default: `up`. */
  readonly command?: 'up' | 'server';
  /** The program; default: that of the sources. */
  readonly main?: string;
};

/** Starts an authority and waits until it is ready. It ends with the scope. */
export async function startAuthority(scope: Scope, options: AuthorityOptions): Promise<Authority> {
  const { directory, trustDomain = 'mesh.test' } = options;
  const workloadSocket = join(directory, 'w.sock');
  const adminSocket = join(directory, 'a.sock');
  const env = {
    COUNTERSIGN_TRUST_DOMAIN: trustDomain,
    COUNTERSIGN_DATA_DIR: join(directory, 'data'),
    COUNTERSIGN_WORKLOAD_SOCKET: workloadSocket,
    COUNTERSIGN_ADMIN_SOCKET: adminSocket,
    COUNTERSIGN_ADMIN_ADDRESS: 'off',
    COUNTERSIGN_SHUTDOWN_GRACE_SECONDS: '1',
    COUNTERSIGN_LOG_LEVEL: 'info',
    ...options.env,
  };
  let child = await start();
  return {
    trustDomain,
    workloadSocket,
    adminSocket,
    child: () => child,
    apply: async (text) => {
      const body = JSON.stringify({ files: [{ file: 'test.yaml', text }] });
      await admin('POST', '/v1/apply', body);
    },
    deletePolicy: async (key) => void (await admin('DELETE', `/v1/policies/${key}`)),
    deleteEntry: async (id) => void (await admin('DELETE', `/v1/entries/${id}`)),
    ban: async (kind, value) => {
      await admin('POST', '/v1/bans', JSON.stringify({ kind, value, reason: 'test' }));
    },
    unban: async (kind, value) => {
      await admin('DELETE', `/v1/bans/${kind}/${encodeURIComponent(value)}`);
    },
    joinToken: async (node) => {
      const { token } = JSON.parse(await admin('POST', '/v1/join-tokens', JSON.stringify({ node }))) as {
        token: string;
      };
      return token;
    },
    evict: async (node) => void (await admin('POST', `/v1/nodes/${node}/evict`, '{}')),
    nodes: async () =>
      (JSON.parse(await admin('GET', '/v1/nodes')) as { items: Record<string, unknown>[] }).items,
    audit: async (query) => {
      const { items } = JSON.parse(await admin('GET', `/v1/audit?order=oldest&limit=1000&${query}`)) as {
        items: { event: Record<string, unknown> }[];
      };
      return items.map(({ event }) => event);
    },
    kill: async () => {
      child.kill('SIGKILL');
      await child.exited;
    },
    stop: async () => {
      child.kill('SIGTERM');
      await child.exited;
    },
    restart: async () => {
      child = await start();
    },
  };

  async function start(): Promise<Child> {
    const main = options.main ?? join(import.meta.dirname, '../../src/cli/main.ts');
    const [command, ...args] = [...(options.wrapper ?? []), process.execPath, main, options.command ?? 'up'];
    const started = startChild(scope, {
      command,
      args,
      env,
      logFile: join(directory, 'authority.log'),
    });
    const ready = async () => {
      if (!started.running()) throw new GaveUp('it has ended');
      return (await ask({ to: adminSocket, path: '/readyz' })).status === 200;
    };
    await eventually('the authority to be ready', ready, { withinMs: 30_000 }).catch((error: Error) => {
      throw new Error(`${error.message}\n${started.output().slice(-4_000)}`, { cause: error });
    });
    return started;
  }

  async function admin(method: string, path: string, body?: string): Promise<string> {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    const answer = await ask({
      to: adminSocket,
      method,
      path,
      headers,
      ...(body === undefined ? {} : { body }),
    });
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${answer.body}`);
    return answer.body;
  }
}
