/** What an agent says of itself. Nobody proves it: it is for people, but for what it has kept. */
export type AgentReport = {
  /** The revision of the open stream that is in force there. */
  readonly viewRevision: number;
  /** Events that are not in the server's log yet. */
  readonly eventsQueued: number;
  /** Events lost since its start. */
  readonly eventsLost: number;
  /** Workloads that hold a certificate. */
  readonly workloads: number;
  /** When the first of them would end, were the server away from now on; null when there is none. */
  readonly darkAt: Date | null;
  /** Of the proxies there that decide by themselves; null from an agent that says nothing of them. */
  readonly proxyPolicies: ProxyPolicies | null;
  /** Null while its cache holds nothing. */
  readonly kept: KeptTrust | null;
};

/** How the proxies of a node that decide by themselves stand with the policies delivered to them, in numbers of filters. */
export type ProxyPolicies = {
  readonly filters: number;
  /** Of these, those that do not have the policy of now and have not refused it. */
  readonly behind: number;
  readonly rejecting: number;
  /** Those that lack what they need to be given policies in full. */
  readonly lacking: number;
  /** The lowest policy revision in force at any of them; null when none has said what it has. */
  readonly oldestPolicy: number | null;
};

/** What an agent goes by on its connections to the server now, and after a crash. */
export type KeptTrust = {
  /** Of the bundle that it verifies the server with. */
  readonly bundleSequence: number;
  /** As `bundleSha256` has it. */
  readonly bundleSha256: string;
  /** Of the certificate that it shows, lower-case hex. */
  readonly serial: string;
};

/** What the server has seen of a node since it started. */
export type NodePresence = {
  /** Whether it watches its view now. */
  readonly connected: boolean;
  /** Since when it is connected, or is not; null when it was not seen since the start. */
  readonly since: Date | null;
  readonly lastContactAt: Date | null;
  /** What the agent calls its version, at most 64 characters. */
  readonly agentVersion: string;
  /** Whether it takes part in rollouts of policies; false for an agent that is too old to, and before it was seen. */
  readonly takesRollouts: boolean;
  /** The revision of its view that was sent last, and the one that it says is in force; 0 before the first. */
  readonly viewSent: number;
  readonly viewInForce: number;
  /** Since when it does not have what it should have; null when it has all. */
  readonly behindSince: Date | null;
  /** What the agent says of itself; null when it has said nothing yet. */
  readonly report: Omit<AgentReport, 'viewRevision' | 'kept'> | null;
};
