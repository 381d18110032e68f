import { join } from 'node:path';
import { renderEnvoyBootstrap } from '../../src/cli/envoy-bootstrap.ts';
import type { EnvoyBootstrapOptions } from '../../src/cli/envoy-bootstrap-options.ts';
import type { Authority } from './authority.ts';
import { type Envoy, makeEnvoyBinary, startEnvoy } from './envoy.ts';
import type { Scope } from './scope.ts';

/** A service with its own Envoy. The entry is made by whoever tests: see {@link entry}. */
export type Sidecar = Envoy & { readonly id: string; readonly binary: string };

export type SidecarOptions = {
  readonly authority: Authority;
  /** A directory to put this sidecar's own under. */
  readonly directory: string;
  /** `shop/web`, of which the SPIFFE ID is made. */
  readonly service: string;
  /** What it listens on and connects to, as of `countersign envoy bootstrap`. */
  readonly ways: Omit<EnvoyBootstrapOptions, 'workload' | 'socket' | 'admin' | 'accessLog'>;
  /** Asks for a plain `trusted_ca` in place of Envoy's SPIFFE validator. */
  readonly plainTrustedCa?: boolean;
  /** Ends each connection at this age, which may be less than the product lets anybody choose: a test sees more of them. */
  readonly connectionSeconds?: number;
  /** Changes the bootstrap, for what the product configures nowhere. */
  readonly rewrite?: (bootstrap: string) => string;
};

/** Starts the Envoy of a service from the bootstrap that the product makes; it is live once it has an entry. */
export function startSidecar(scope: Scope, options: SidecarOptions): Sidecar {
  const { authority, service, ways } = options;
  const id = idOf(authority, service);
  const directory = join(options.directory, service.replace('/', '-'));
  const binary = makeEnvoyBinary(directory);
  const { rewrite = (text) => text } = options;
  const bootstrap = (files: { admin: string; accessLog: string }): string =>
    rewrite(
      renderEnvoyBootstrap({
        decisionTimeout,
        ...ways,
        ...files,
        workload: id,
        socket: authority.workloadSocket,
      })
        .replace(/^  cluster: .*$/m, options.plainTrustedCa === true ? `$&${plainMetadata}` : '$&')
        .replace(/(connection_duration: "?)[0-9]+s/g, (all, key: string) =>
          options.connectionSeconds === undefined ? all : `${key}${options.connectionSeconds}s`,
        ),
    );
  return { ...startEnvoy(scope, { name: service, directory, binary, bootstrap }), id, binary };
}

/** `spiffe://<trust domain>/ns/shop/sa/web` for `shop/web`. */
export function idOf(authority: Pick<Authority, 'trustDomain'>, service: string): string {
  const [namespace, account] = service.split('/');
  return `spiffe://${authority.trustDomain}/ns/${namespace}/sa/${account}`;
}

/** The document that registers a process at `path` as an identity. */
export function entry(
  id: string,
  path: string,
  spec: Readonly<Record<string, unknown>> = {},
  labels?: Readonly<Record<string, string>>,
): string {
  return document({
    apiVersion: 'countersign.dev/v1',
    kind: 'RegistrationEntry',
    metadata: { name: id.split('/').slice(3).join('-'), ...(labels === undefined ? {} : { labels }) },
    spec: { spiffeId: id, selectors: [`unix:path:${path}`], ...spec },
  });
}

/** A policy of a namespace. */
export function policy(namespace: string, name: string, spec: Readonly<Record<string, unknown>>): string {
  return document({
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name, namespace },
    spec,
  });
}

/** JSON is YAML. */
function document(value: unknown): string {
  return `---\n${JSON.stringify(value, null, 2)}\n`;
}

const plainMetadata = '\n  metadata:\n    disable_spiffe_cert_validation: true';
// On a machine that is busy with other tests a decision may be late; how late is not what these tests are about.
const decisionTimeout = '5s';
