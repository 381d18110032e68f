import type { PathNormalization } from './normalized-path.ts';

/** A call as a proxy sees it, nothing interpreted: what Istio's reading of a policy compares with. */
export type ProxyRequest = {
  readonly protocol: 'http' | 'tcp';
  /** The names in the verified certificate of the peer, URIs first; empty without one. */
  readonly peerNames: readonly string[];
  readonly method: string | null;
  /** `:path` with its query. */
  readonly path: string | null;
  /** `:authority`, port and all. */
  readonly host: string | null;
  /** Lower-case names; each line of a header that came in several is one entry. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** The peer of the connection. */
  readonly sourceIp: string | null;
  /** The client, as trusted proxies name it; that of the connection when there are none. */
  readonly remoteIp: string | null;
  readonly destinationIp: string | null;
  readonly destinationPort: number | null;
  readonly sni: string;
  /** The claims of the validated token; null without one. */
  readonly claims: ReadonlyMap<string, unknown> | null;
  /** Dynamic metadata: filter, key, value. */
  readonly metadata: ReadonlyMap<string, ReadonlyMap<string, unknown>>;
};

/** What a mesh and a workload are to the policies of both. */
export type IstioMesh = {
  /** The mesh's own trust domain first, then its aliases; at least one. */
  readonly trustDomains: readonly string[];
  readonly rootNamespace: string;
  readonly pathNormalization: PathNormalization;
};

/** The workload that is called. */
export type IstioWorkload = { readonly namespace: string; readonly labels: ReadonlyMap<string, string> };
