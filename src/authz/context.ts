/**
 * What a call shows beside who calls whom with which method, path and host. Undefined is what the proxy did not say: a
 * predicate on it cannot be judged. Nothing here is canonical.
 */
export type CallContext = {
  /**
   * The lines of a header, each as it came; none when the request has no such header, undefined when lines cannot be told
   * apart.
   * @param name lower case
   */
  readonly headerLines: ((name: string) => readonly string[] | undefined) | undefined;
  /** The peer of the connection, and the client behind trusted proxies. */
  readonly sourceIp: string | undefined;
  readonly remoteIp: string | undefined;
  readonly destinationIp: string | undefined;
  /** What TLS asked for; empty when it named nothing. */
  readonly sni: string | undefined;
  /** The claims of a token that somebody has verified; null when there was none. */
  readonly claims: ReadonlyMap<string, unknown> | null | undefined;
  /** What the filters of the proxy noted: filter, key, value. */
  readonly metadata: ReadonlyMap<string, ReadonlyMap<string, unknown>> | undefined;
};

/** Of a call about which nothing more is said. */
export const untold: CallContext = {
  headerLines: undefined,
  sourceIp: undefined,
  remoteIp: undefined,
  destinationIp: undefined,
  sni: undefined,
  claims: undefined,
  metadata: undefined,
};
