import { parse, stringify } from 'yaml';
import type { Authority } from '../../test/harness/authority.ts';
import { eventually } from '../../test/harness/eventually.ts';
import { ask } from '../../test/harness/http.ts';
import { idOf, policy, type Sidecar, startSidecar } from '../../test/harness/mesh.ts';
import type { Scope } from '../../test/harness/scope.ts';

/** One real Envoy that answers calls itself, once they are allowed. */
export type BenchProxy = { readonly sidecar: Sidecar; readonly service: string; readonly port: number };

/** Starts the Envoy of a service, live once it has an entry. Calls that pass are answered 200 without an application. */
export function startBenchProxy(
  scope: Scope,
  authority: Authority,
  directory: string,
  { service, port, decide, rbac }: { service: string; port: number; decide: string; rbac?: object },
): BenchProxy {
  const rewrite = (text: string): string => {
    const made = parse(text) as Made;
    const [listener] = made.static_resources.listeners;
    const manager = listener?.filter_chains[0]?.filters[0]?.typed_config;
    if (listener === undefined || manager === undefined)
      throw new Error('the bootstrap has no inbound listener');
    const [host] = manager.route_config.virtual_hosts;
    if (host !== undefined) {
      host.routes = [
        { match: { prefix: '/' }, direct_response: { status: 200, body: { inline_string: 'ok' } } },
      ];
    }
    // What is written for each call costs the same whoever decides, and is not the question here.
    delete manager.access_log;
    delete listener.access_log;
    if (rbac !== undefined) {
      const name = 'envoy.filters.http.rbac';
      const type = 'type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC';
      const own = { name, typed_config: { '@type': type, rules: rbac } };
      manager.http_filters = [own, ...manager.http_filters.slice(-1)];
    }
    return stringify(made, { aliasDuplicateObjects: false });
  };
  const ways = {
    inbound: `127.0.0.1:${port}`,
    app: '127.0.0.1:9',
    accessLogStream: 'off',
    decide,
  };
  return { sidecar: startSidecar(scope, { authority, directory, service, ways, rewrite }), service, port };
}

/** Waits until the proxies of these services have the policy of now. */
export async function haveCurrent(authority: Authority, services: readonly string[]): Promise<void> {
  const names = services.map((service) => `countersign.policy/${idOf(authority, service)}`);
  await eventually(
    'the policies to be in use',
    async () => {
      const { body } = await ask({ to: authority.adminSocket, path: '/v1/status' });
      const { proxies } = JSON.parse(body) as { proxies: { name: string; state: string }[] };
      return names.every((name) => proxies.some((proxy) => proxy.name === name && proxy.state === 'current'));
    },
    { withinMs: 120_000 },
  );
}

/** Policies that let `callers` callers read from a service, `shop/web` in the middle of them. */
export function allowCallers(service: string, callers: number, suffix = ''): readonly string[] {
  const [namespace = '', account = ''] = service.split('/');
  const names = Array.from({ length: callers }, (_, i) =>
    i === Math.floor(callers / 2) ? 'mesh.test/ns/shop/sa/web' : `mesh.test/ns/shop/sa/caller-${i}`,
  );
  const texts: string[] = [];
  for (let at = 0; at < names.length; at += callersInRule) {
    const principals = names.slice(at, at + callersInRule);
    texts.push(
      policy(namespace, `${account}-${at}${suffix}`, {
        selector: { matchLabels: { app: account } },
        rules: [{ from: [{ source: { principals } }], to: [{ operation: { methods: ['GET'] } }] }],
      }),
    );
  }
  return texts;
}

const callersInRule = 250;

type Made = {
  static_resources: {
    listeners: {
      access_log?: unknown;
      filter_chains: {
        filters: {
          typed_config: {
            access_log?: unknown;
            http_filters: object[];
            route_config: { virtual_hosts: { routes: object[] }[] };
          };
        }[];
      }[];
    }[];
  };
};
