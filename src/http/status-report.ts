import type { PolicyMode } from '../authz/policy-mode.ts';
import type { AttestationMethod } from '../identity/node.ts';
import type { PolicyInForce } from '../identity/policy-revision.ts';
import type { Condition } from './condition.ts';

/** What `GET /v1/status` and `countersign status` tell. Times are serialised as RFC 3339. */
export type StatusReport = {
  readonly version: string;
  /** Whether workloads of this machine are served here, or those of other machines by their agents. */
  readonly serves: 'machine' | 'nodes';
  readonly trustDomain: string;
  /** The time as the server has it. */
  readonly now: Date;
  readonly startedAt: Date;
  readonly ready: boolean;
  /** Why it is not ready; empty when it is. */
  readonly causes: readonly string[];
  /** What will need somebody before long; empty when nothing does. */
  readonly warnings: readonly string[];
  /** Causes and warnings with their codes, and what to do. */
  readonly conditions: readonly Condition[];
  readonly dataDir: string;
  readonly workloadSocket: string;
  readonly adminSocket: string;
  /** `https://host:port`, or null when the TLS door is off. */
  readonly adminUrl: string | null;
  /** `host:port` of the node API, or null when it is off. */
  readonly nodeAddress: string | null;
  /** The public door for the trust bundle, or null when it is off. */
  readonly trustEndpoint: {
    /** `https://host:port`. */
    readonly url: string;
    /** How consumers know it: by its SPIFFE ID, or as any web server. */
    readonly profile: 'https_spiffe' | 'https_web';
    /** Null with the profile https_web. */
    readonly spiffeId: string | null;
  } | null;
  /** One sentence: who keeps the keys, and what that is good for. */
  readonly custody: string;
  /** One sentence: what of other processes attestation can see here. */
  readonly attestation: string;
  /** The mesh revision. */
  readonly revision: number;
  readonly entries: number;
  readonly policies: number;
  /** Null while there was no revision of policies. */
  readonly policyRevision: PolicyInForce | null;
  /** The rollout that is under way; null when there is none. */
  readonly policyRollout: {
    readonly id: string;
    /** The number of the revision that it stands beside. */
    readonly base: number;
    readonly stage: 'shadow' | 'canary';
    /** Of the workloads whose calls the candidate decides, 0 to 100. */
    readonly percent: number;
    /** Of the last step. */
    readonly since: Date;
    /** Calls that were judged by the candidate, and what it would change of them. */
    readonly judged: number;
    readonly newlyDenied: number;
    readonly newlyAllowed: number;
  } | null;
  /** How policies are read when a proxy asks. */
  readonly policyMode: PolicyMode;
  /** Break-glass grants that have not ended, in a line each; 16 at most. */
  readonly breakGlass: readonly string[];
  /** Leaves of the audit log. */
  readonly auditSize: number;
  /** Open streams of proxies. */
  readonly streams: number;
  readonly authorities: readonly {
    readonly kind: 'root' | 'intermediate';
    readonly keyId: string;
    readonly notAfter: Date;
  }[];
  /** Those that have a certificate from here or wait for one; the first to go dark first, {@link maxOutlooks} at most. */
  readonly workloads: readonly WorkloadOutlook[];
  readonly workloadsInAll: number;
  /** What is asked about processes of this machine. */
  readonly sources: readonly SourceReport[];
  readonly nodes: NodesReport;
  /** Proxies of this machine that decide by themselves; those in trouble first, {@link maxProxies} at most. */
  readonly proxies: readonly ProxyReport[];
  readonly proxiesInAll: number;
};

/** The most proxies that a status lists. */
export const maxProxies = 1_000;

/** How one filter of one proxy stands with the policy it decides by. */
export type ProxyReport = {
  /** What the proxy calls itself. */
  readonly nodeId: string;
  readonly pid: number;
  readonly uid: number;
  /** Of the resource it asks for; empty for a proxy that is served nothing. */
  readonly name: string;
  /**
   * `behind`: it has not said yet that it has what it should have. `rejected`: it has refused it, and keeps what it had.
   * `unserved`: it is given nothing, for what it lacks.
   */
  readonly state: 'current' | 'behind' | 'rejected' | 'unserved';
  /** The version that it should have, and the one that it says it has; empty when there is none. */
  readonly desired: string;
  readonly acknowledged: string;
  /** The latest policy revision in force there; null when it is not known. */
  readonly policyRevision: number | null;
  readonly behindSince: Date | null;
  /** How it put its refusal, at most 1,024 characters; empty when it did not refuse. */
  readonly rejection: string;
  /** What it lacks to be given policies in full; empty when it lacks nothing. */
  readonly lacks: string;
  /** Of what it should have: how many ends of it allow, deny, and ask; null for what says the same of every call. */
  readonly leaves: { readonly allow: number; readonly deny: number; readonly ask: number } | null;
};

/** The most workloads that a status lists. */
export const maxOutlooks = 2_000;

/** Until when a workload works if nothing is renewed from now on. */
export type WorkloadOutlook = {
  readonly spiffeId: string;
  readonly entryId: string;
  /** Of its certificate, lower-case hex; empty while it has none. */
  readonly serial: string;
  readonly expiresAt: Date | null;
  /** When it is made anew, a moment of the past while that fails; null while nobody asks for it. */
  readonly renewsAt: Date | null;
  readonly darkAt: Date;
  /** What ends first: the certificate, the time for which policy may go unconfirmed, or the entry. */
  readonly darkBy: 'certificate' | 'policy' | 'entry';
  /** From the moment of the answer, 0 when it is over. */
  readonly darkInSeconds: number;
  /** The code of the last attempt to renew, or empty. */
  readonly failure: string;
};

/** How a source of selectors fares. */
export type SourceReport = {
  readonly name: string;
  /** The URL or socket it asks; empty for one that asks the kernel alone. */
  readonly place: string;
  /** `unused`: nobody had to ask it since the start. */
  readonly state: 'unused' | 'ok' | 'failing';
  readonly calls: number;
  readonly failures: number;
  readonly lastSuccessAt: Date | null;
  readonly lastFailureAt: Date | null;
  readonly lastFailure: string;
};

/** The machines that run an agent, in numbers. */
export type NodesReport = {
  /** That hold a certificate which counts. */
  readonly attested: number;
  readonly connected: number;
  /** Who has been without its latest view for longest; null when all have it. */
  readonly laggard: { readonly name: string; readonly behindSince: Date; readonly connected: boolean } | null;
};

/** What an agent tells of itself. Times are serialised as RFC 3339. */
export type AgentStatusReport = Pick<
  StatusReport,
  | 'version'
  | 'now'
  | 'startedAt'
  | 'ready'
  | 'causes'
  | 'warnings'
  | 'dataDir'
  | 'workloadSocket'
  | 'adminSocket'
  | 'entries'
  | 'policies'
  | 'streams'
  | 'workloads'
  | 'workloadsInAll'
  | 'sources'
  | 'proxies'
  | 'proxiesInAll'
> & {
  /** Tells it from the status of a server. */
  readonly kind: 'agent';
  /** Null until the server was reached for the first time. */
  readonly trustDomain: string | null;
  /** `http://host:port` for metrics, or null when it is off. */
  readonly metricsUrl: string | null;
  /** Null until it is attested. */
  readonly node: {
    readonly name: string;
    readonly spiffeId: string;
    /** Of its certificate, lower-case hex. */
    readonly serial: string;
    /** When that ends. Until then the node comes back without attesting again. */
    readonly expiresAt: Date;
    readonly expiresInSeconds: number;
    /** What it is configured to attest with after that; null when there is nothing: then it needs a new join token. */
    readonly attestsWith: AttestationMethod | null;
  } | null;
  readonly server: {
    /** `host:port`. */
    readonly address: string;
    readonly connected: boolean;
    /** Since when it is, or is not. */
    readonly since: Date;
    /** When the server last confirmed the view: now, while it is connected; null when it never did. */
    readonly lastContactAt: Date | null;
    /** What stands in the way; null when nothing does. */
    readonly trouble: { readonly code: string; readonly message: string; readonly fix?: string } | null;
    /** Of the view in force, within its stream. */
    readonly viewRevision: number;
    readonly meshRevision: number;
  };
  /** Null until there is one. */
  readonly policy: {
    /** Null while the server knows of none. */
    readonly revision: PolicyInForce | null;
    readonly mode: PolicyMode;
    readonly maxStalenessSeconds: number;
    /** When every call is denied if the server is away from now on. */
    readonly deniesAt: Date;
    readonly deniesInSeconds: number;
  } | null;
  readonly events: {
    /** Not in the server's log yet. */
    readonly queued: number;
    /** Lost since the start. */
    readonly lost: number;
  };
};

/** Whether an agent can do its work now, and what is missing when it cannot. */
export type AgentReadiness = Pick<AgentStatusReport, 'ready' | 'causes' | 'warnings'>;

/** Whether the server can do its work now, and what is missing when it cannot. */
export type Readiness = Pick<StatusReport, 'ready' | 'causes' | 'warnings'>;

/** The same with what there is to do. */
export type ServerReadiness = Readiness & Pick<StatusReport, 'conditions'>;
