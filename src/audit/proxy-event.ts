import type { Caller, Personal } from './event.ts';

/**
 * A call that a proxy decided about by itself, by the policy that it was sent. No decision of ours: it is taken down as what
 * the proxy tells, of whom it stands for alone.
 */
export type ProxyJudged = {
  readonly verdict: 'allow' | 'deny';
  /** Of those of a decision (see authz/decision.ts), or `other`. */
  readonly reason: string;
  /** `namespace/name rule[n]`, as the proxy names it, or empty. */
  readonly rule: string;
  /** The name of the leaf of its policy that decided, as Envoy prints it in `rbac_access_denied_matched_policy[...]`. */
  readonly leaf: string;
  /** The revision of the policies, where the leaf names it; 0 where it does not. */
  readonly revision: number;
  /** The caller's SPIFFE ID, in a certificate that the proxy verified; empty when there was none. */
  readonly source: string;
  /** Whom the proxy stands for. */
  readonly destination: string;
  /** `http` or `tcp`. */
  readonly protocol: string;
  /** One of a closed list of HTTP methods, `OTHER`, or empty. */
  readonly method: string;
  readonly port: number;
  /** Serial of the peer certificate, lower-case hex, or empty. */
  readonly sourceSerial: string;
  /** The proxy. */
  readonly caller: Caller;
};

/** One such call: each denial has a record, as long as its proxy does not tell of too many. */
export type ProxyVerdictEvent = ProxyJudged & {
  readonly type: 'proxy_verdict';
  /** When the call was over, by the clock of the proxy. */
  readonly time: Date;
  readonly host: string;
  /** Without a query. */
  readonly path: Personal;
  /** `address:port`. */
  readonly sourceAddress: Personal;
};

/** Such calls that agree in all that is told here, counted together: allowed ones, and denials that were too many. */
export type ProxyVerdictsEvent = ProxyJudged & {
  readonly type: 'proxy_verdicts';
  /** Of the last of them, like `to`. */
  readonly time: Date;
  readonly from: Date;
  readonly to: Date;
  /** At least 1. */
  readonly count: number;
  /** The value of the rule's `paths` that the path fits, or `*`. */
  readonly pathPattern: string;
};

/**
 * How many calls the policy in a proxy has judged, by the counters of the proxy itself, those that it asked about included,
 * and how many of them its access log never told of. The counters are told another way than the log, and are not lost with it.
 */
export type ProxyCoverageEvent = {
  readonly type: 'proxy_coverage';
  /** Like `to`. */
  readonly time: Date;
  /** `started`, or where the count before this one ended. */
  readonly from: Date;
  readonly to: Date;
  /** Calls judged from `from` to `to`; 0 when there is only something missing. */
  readonly count: number;
  /**
   * Calls, of these or earlier ones, that were found to be over without an access log that told of them, some seconds later.
   * At most `counted`.
   */
  readonly missing: number;
  /** Whom the proxy stands for; by its process, as counters name nobody. */
  readonly destination: string;
  /** When the proxy began to count. */
  readonly started: Date;
  /** Calls judged from `started` to `to`. */
  readonly counted: number;
  /** Entries of access logs that the proxy says it has dropped, from `started` to `to`. */
  readonly dropped: number;
  /** The proxy. */
  readonly caller: Caller;
};
