import type { Counter, Histogram, Metrics } from './metrics.ts';
import type { ProxyPolicyStanding } from './xds/policy-book.ts';

/** What is counted of the policies that proxies decide by themselves. */
export type PolicyInstruments = {
  readonly messages: Counter;
  readonly failures: Counter;
  readonly acknowledgedAfter: Histogram;
  readonly compiledIn: Histogram;
  /** @param standings asked for when the metrics are */
  readonly watch: (standings: () => readonly ProxyPolicyStanding[]) => void;
};

export function addPolicyMetrics(metrics: Metrics): PolicyInstruments {
  let standings: () => readonly ProxyPolicyStanding[] = () => [];
  const countIn = (state: ProxyPolicyStanding['state']): number =>
    standings().filter((standing) => standing.state === state).length;
  metrics.labelled(
    'gauge',
    'countersign_policy_proxies',
    'Filters of proxies that ask for policies, by how they stand with them.',
    'state',
    () => (['current', 'behind', 'rejected', 'unserved'] as const).map((state) => [state, countIn(state)]),
  );
  return {
    messages: metrics.counter(
      'countersign_policy_messages',
      'Policies sent to proxies and their fate.',
      'kind',
      ['push', 'ack', 'nack', 'unanswered'],
    ),
    failures: metrics.counter(
      'countersign_policy_failures',
      'Policies for proxies that could not be made: their proxies ask about every call.',
      'kind',
      ['failed'],
    ),
    acknowledgedAfter: metrics.histogram(
      'countersign_policy_ack_seconds',
      'Time from sending a policy to a proxy to its word that it is in use.',
      [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10],
    ),
    compiledIn: metrics.histogram(
      'countersign_policy_compile_seconds',
      'Time to make the policy of one destination for proxies, others work in between included.',
      [0.001, 0.005, 0.025, 0.1, 0.5, 2.5],
    ),
    watch: (read) => (standings = read),
  };
}
