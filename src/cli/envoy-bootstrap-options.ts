import { MeshError, quote } from '../errors.ts';
import { SpiffeId } from '../spiffe/id.ts';

/** What `countersign envoy bootstrap` was asked for, as text; each field is the option of the same name. */
export type EnvoyBootstrapOptions = {
  /** SPIFFE ID of the workload the sidecar stands for. */
  readonly workload: string;
  /** The authority's workload socket, an absolute path. */
  readonly socket: string;
  /** `host:port` on which peers reach the workload over mTLS, each call subject to policy; needs `app`. */
  readonly inbound?: string;
  /** `host:port` of the application behind `inbound`. */
  readonly app?: string;
  /**
   * `host:port=host:port`: mTLS to a TCP application, each connection subject to policy. The caller must send the first
   * byte: a protocol in which the server speaks first does not work.
   */
  readonly inboundTcp?: readonly string[];
  /** The same for every caller of the trust domain: no policy is asked, the server may speak first. */
  readonly inboundTcpOpen?: readonly string[];
  /** `host:port=spiffe://...@host:port`: plain HTTP in, mTLS out to exactly that identity. */
  readonly outbound?: readonly string[];
  /** The same for TCP. */
  readonly outboundTcp?: readonly string[];
  /** Absolute path of a Unix socket (made 0600), or a loopback `host:port`. */
  readonly admin?: string;
  /** `stdout` (the default) or an absolute path. */
  readonly accessLog?: string;
  /** `on` (the default) or `off`: whether the proxy tells the audit log what it sees of calls from peers. */
  readonly accessLogStream?: string;
  /** `3600s`, `15m` or `1h`: how long a connection may outlive the checks it began with; 10 s to 24 h. */
  readonly maxConnectionDuration?: string;
  /** `250ms` (the default) or `1s`: how long a call waits for its decision before it fails; 50 ms to 10 s. */
  readonly decisionTimeout?: string;
  /** Name of the proxy in its own logs; nothing is granted on it. */
  readonly nodeId?: string;
  /** How certificates are asked for: `sds` (the default), `delta-sds`, `ads` or `delta-ads`. */
  readonly xds?: string;
  /**
   * `agent` (the default): each call is decided by the agent. `in-proxy`: the proxy decides by a policy that the agent
   * delivers, and asks the agent about what that leaves open.
   */
  readonly decide?: string;
};

/** How a proxy asks for its certificates: one stream for each or one for all its listeners, everything or what is new. */
export type XdsForm = { readonly isAggregated: boolean; readonly isDelta: boolean };

/** An IP address, IPv6 without brackets, and a port from 1 to 65,535. */
export type HostPort = { readonly host: string; readonly port: number };

/** A peer, where it is reached, and the loopback address that leads to it. */
export type Upstream = { readonly listen: HostPort; readonly peer: SpiffeId; readonly address: HostPort };

/** A port of a TCP application; `open` when no policy guards it. */
export type InboundTcp = { readonly listen: HostPort; readonly app: HostPort; readonly open: boolean };

/** The options, understood. */
export type EnvoyPlan = {
  readonly workload: SpiffeId;
  readonly socket: string;
  readonly inbound: { readonly listen: HostPort; readonly app: HostPort } | null;
  readonly inboundTcp: readonly InboundTcp[];
  readonly outbound: readonly Upstream[];
  readonly outboundTcp: readonly Upstream[];
  readonly admin: { readonly path: string } | HostPort | null;
  readonly accessLog: 'stdout' | { readonly path: string };
  readonly accessLogStream: boolean;
  readonly maxConnectionSeconds: number;
  readonly decisionTimeoutMs: number;
  readonly nodeId: string;
  readonly xds: XdsForm;
  readonly decide: 'agent' | 'in-proxy';
};

/**
 * Reads the options.
 * @throws MeshError `usage` when options are missing, contradict each other or name one address twice; `config_invalid`
 * when a value is malformed. The message begins with the option.
 */
export function planEnvoy(options: EnvoyBootstrapOptions): EnvoyPlan {
  const workload = spiffeId('--workload', options.workload);
  const plan: EnvoyPlan = {
    workload,
    socket: socketPath('--workload-socket', options.socket),
    inbound: inbound(options),
    inboundTcp: [
      ...(options.inboundTcp ?? []).map((text) => inboundTcp('--inbound-tcp', text, false)),
      ...(options.inboundTcpOpen ?? []).map((text) => inboundTcp('--inbound-tcp-open', text, true)),
    ],
    outbound: (options.outbound ?? []).map((text) => upstream('--outbound', text)),
    outboundTcp: (options.outboundTcp ?? []).map((text) => upstream('--outbound-tcp', text)),
    admin: options.admin === undefined ? null : admin(options.admin),
    accessLog: accessLog(options.accessLog ?? 'stdout'),
    accessLogStream: isOn('--access-log-stream', options.accessLogStream ?? 'on'),
    maxConnectionSeconds: connectionDuration(options.maxConnectionDuration ?? '3600s'),
    decisionTimeoutMs: decisionTimeout(options.decisionTimeout ?? '250ms'),
    nodeId: nodeId(options.nodeId ?? `sidecar${workload.path}`),
    xds: xds(options.xds ?? 'sds'),
    decide: decide(options.decide ?? 'agent'),
  };
  checkListeners(plan);
  return plan;
}

/** `127.0.0.1:15443` or `[::1]:15443`, as Envoy and people write it. */
export function formatHostPort({ host, port }: HostPort): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

function inbound({ inbound, app }: EnvoyBootstrapOptions): EnvoyPlan['inbound'] {
  if (inbound === undefined && app === undefined) return null;
  if (inbound === undefined)
    throw usage('--app', 'is given without --inbound', 'give --inbound host:port as well');
  if (app === undefined) throw usage('--inbound', 'is given without --app', 'give --app host:port as well');
  return { listen: hostPort('--inbound', inbound), app: hostPort('--app', app) };
}

function inboundTcp(option: string, text: string, open: boolean): InboundTcp {
  const [listen, app, ...more] = text.split('=');
  if (listen === undefined || app === undefined || more.length > 0) {
    throw invalid(option, text, 'is not host:port=host:port', '127.0.0.1:15444=127.0.0.1:5432');
  }
  return { listen: hostPort(option, listen), app: hostPort(option, app), open };
}

function upstream(option: string, text: string): Upstream {
  // Neither `=` nor `@` can occur in a SPIFFE ID or an address.
  const parts = /^([^=@]*)=([^=@]*)@([^=@]*)$/.exec(text);
  const [, listen, peer, address] = parts ?? [];
  if (listen === undefined || peer === undefined || address === undefined) {
    const example = '127.0.0.1:15001=spiffe://example.org/ns/shop/sa/orders@127.0.0.1:15443';
    throw invalid(option, text, 'is not host:port=spiffe://...@host:port', example);
  }
  return {
    listen: hostPort(option, listen),
    peer: spiffeId(option, peer),
    address: hostPort(option, address),
  };
}

function admin(text: string): NonNullable<EnvoyPlan['admin']> {
  if (text.startsWith('/')) return { path: socketPath('--admin', text) };
  const address = hostPort('--admin', text);
  // Envoy's admin port shows secrets' names, stops the proxy and asks nobody who they are.
  if (address.host !== '127.0.0.1' && address.host !== '::1') {
    throw invalid('--admin', text, 'is not on this machine only', '/run/app/envoy-admin.sock');
  }
  return address;
}

function accessLog(text: string): EnvoyPlan['accessLog'] {
  if (text === 'stdout') return 'stdout';
  return { path: absolutePath('--access-log', text) };
}

function isOn(option: string, text: string): boolean {
  if (text !== 'on' && text !== 'off') throw invalid(option, text, 'is neither on nor off', 'on');
  return text === 'on';
}

function decide(text: string): EnvoyPlan['decide'] {
  if (text === 'agent' || text === 'in-proxy') return text;
  throw invalid('--decide', text, 'is neither agent nor in-proxy', 'in-proxy');
}

function connectionDuration(text: string): number {
  const [, digits, unit] = /^([0-9]{1,6})(s|m|h)$/.exec(text) ?? [];
  const seconds = Number(digits) * { s: 1, m: 60, h: 3_600 }[unit as 's' | 'm' | 'h'];
  if (!(seconds >= minConnectionSeconds && seconds <= maxConnectionSeconds)) {
    throw invalid('--max-connection-duration', text, 'is not a duration from 10s to 24h', '3600s');
  }
  return seconds;
}

function decisionTimeout(text: string): number {
  const [, digits, unit] = /^([0-9]{1,5})(ms|s)$/.exec(text) ?? [];
  const ms = Number(digits) * (unit === 's' ? 1_000 : 1);
  if (!(ms >= minDecisionMs && ms <= maxDecisionMs)) {
    throw invalid('--decision-timeout', text, 'is not a duration from 50ms to 10s', '250ms');
  }
  return ms;
}

function nodeId(text: string): string {
  if (/^[\u0021-\u007e]{1,256}$/.test(text)) return text;
  // The default is made of the workload's path, which may be longer than anybody wants to read.
  if (text.startsWith('sidecar/')) return text.slice(0, 256);
  throw invalid('--node-id', text, 'is not 1 to 256 printable ASCII characters', 'web-1');
}

function xds(text: string): XdsForm {
  const [, delta, service] = /^(delta-)?(sds|ads)$/.exec(text) ?? [];
  if (service === undefined) throw invalid('--xds', text, 'is not sds, delta-sds, ads or delta-ads', 'sds');
  return { isAggregated: service === 'ads', isDelta: delta !== undefined };
}

function checkListeners(plan: EnvoyPlan): void {
  const listens = [
    ...(plan.inbound === null ? [] : [{ option: '--inbound', listen: plan.inbound.listen }]),
    ...plan.inboundTcp.map(({ listen, open }) => ({
      option: open ? '--inbound-tcp-open' : '--inbound-tcp',
      listen,
    })),
    ...plan.outbound.map(({ listen }) => ({ option: '--outbound', listen })),
    ...plan.outboundTcp.map(({ listen }) => ({ option: '--outbound-tcp', listen })),
  ];
  if (listens.length === 0) {
    throw usage(
      '--inbound',
      'or --outbound is missing: the proxy would have nothing to do',
      'give at least one',
    );
  }
  const seen = new Map<string, string>();
  for (const { option, listen } of listens) {
    const address = formatHostPort(listen);
    const other = seen.get(address);
    if (other !== undefined) {
      throw usage(
        option,
        `listens on ${quote(address)}, as ${other} does`,
        'give each listener its own port',
      );
    }
    seen.set(address, option);
  }
}

function spiffeId(option: string, text: string): SpiffeId {
  try {
    return SpiffeId.parseWorkload(text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : 'is not a SPIFFE ID';
    throw new MeshError('config_invalid', `${option}: ${why}`, {
      cause,
      fix: 'write it as spiffe://example.org/ns/shop/sa/web',
    });
  }
}

function hostPort(option: string, text: string): HostPort {
  const [, v6, v4, digits] = /^(?:\[([0-9a-f:]{2,39})\]|([0-9.]{7,15})):([1-9][0-9]{0,4})$/i.exec(text) ?? [];
  const host = v6 ?? v4;
  const port = Number(digits);
  if (host === undefined || port > 65_535 || !isAddress(host)) {
    throw invalid(option, text, 'is not an IP address with a port from 1 to 65535', '127.0.0.1:15443');
  }
  return { host, port };
}

function isAddress(host: string): boolean {
  if (!host.includes(':')) {
    const octets = host.split('.');
    return octets.length === 4 && octets.every((o) => /^(0|[1-9][0-9]{0,2})$/.test(o) && Number(o) <= 255);
  }
  const groups = host.split('::');
  const count = host.split(':').filter((group) => group !== '').length;
  return (
    groups.length <= 2 &&
    !/:::|^:[^:]|[^:]:$/.test(host) &&
    host.split(':').every((group) => group.length <= 4) &&
    (groups.length === 2 ? count < 8 : count === 8)
  );
}

function absolutePath(option: string, text: string): string {
  // A `%` would be read as a format by Envoy's loggers, a newline could start a field of its own in other files.
  if (!/^\/[^\u0000-\u001f\u007f%]{1,1024}$/.test(text)) {
    throw invalid(option, text, 'is not an absolute path', '/var/log/app/envoy.json');
  }
  return text;
}

function socketPath(option: string, text: string): string {
  const path = absolutePath(option, text);
  // sockaddr_un.sun_path holds 108 bytes with the final zero; a longer name would be cut without a word.
  if (Buffer.byteLength(path) > 107) {
    throw invalid(
      option,
      text,
      'is longer than the 107 bytes of a Unix socket path',
      '/run/app/workload.sock',
    );
  }
  return path;
}

function usage(option: string, why: string, fix: string): MeshError {
  return new MeshError('usage', `${option} ${why}`, { fix });
}

function invalid(option: string, text: string, why: string, example: string): MeshError {
  return new MeshError('config_invalid', `${option} ${quote(text)} ${why}`, {
    fix: `write it as ${example}`,
  });
}

const minConnectionSeconds = 10;
const maxConnectionSeconds = 86_400;
const minDecisionMs = 50;
const maxDecisionMs = 10_000;
