/** What `GET /v1/status` and `countersign status` tell. Times are serialised as RFC 3339. */
export type StatusReport = {
  readonly version: string;
  readonly trustDomain: string;
  readonly startedAt: Date;
  readonly ready: boolean;
  /** Why it is not ready; empty when it is. */
  readonly causes: readonly string[];
  /** What will need somebody before long; empty when nothing does. */
  readonly warnings: readonly string[];
  readonly dataDir: string;
  readonly workloadSocket: string;
  readonly adminSocket: string;
  /** `https://host:port`, or null when the TLS door is off. */
  readonly adminUrl: string | null;
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
  /** Leaves of the audit log. */
  readonly auditSize: number;
  /** Open streams of proxies. */
  readonly streams: number;
  readonly authorities: readonly {
    readonly kind: 'root' | 'intermediate';
    readonly keyId: string;
    readonly notAfter: Date;
  }[];
};

/** Whether the server can do its work now, and what is missing when it cannot. */
export type Readiness = Pick<StatusReport, 'ready' | 'causes' | 'warnings'>;
