import type { AgentConfig } from './agent-config.ts';
import type { Clock } from './clock.ts';
import { MeshError } from './errors.ts';
import type { NodeLinkParts } from './node/node-link.ts';
import { learnServer, parseJoinSecret } from './node/server-trust.ts';

/** What an agent shows of its machine, and whom it believes at first: both read anew each time, as files are replaced. */
export function createEvidenceSource(
  config: Pick<
    AgentConfig,
    'joinToken' | 'machine' | 'kubernetes' | 'server' | 'trustDomain' | 'trustRoots' | 'trustRootSha256'
  >,
  clock: Clock,
): Pick<NodeLinkParts, 'learnTrust' | 'evidence'> {
  const readJoin = () => {
    const text = config.joinToken();
    return text === null ? null : parseJoinSecret(text);
  };
  return {
    evidence: () => {
      const machine = config.machine() ?? config.kubernetes();
      if (machine !== null) return machine;
      const join = readJoin();
      return join === null ? null : { kind: 'join_token', secret: join.secret };
    },
    learnTrust: async (signal) => {
      const { server, trustDomain, trustRoots } = config;
      if (trustRoots !== null && trustDomain !== null) return { roots: trustRoots, trustDomain };
      const pin = config.trustRootSha256 ?? readJoin()?.rootSha256;
      if (pin === undefined) {
        throw new MeshError('server_untrusted', 'nothing says which server to trust', {
          fix: 'give --join-token-file with a file that is there, --trust-bundle with --trust-domain, or --trust-bundle-sha256',
        });
      }
      const trust = await learnServer(server, pin, clock.now(), signal);
      if (trustDomain !== null && !trustDomain.equals(trust.trustDomain)) {
        throw new MeshError(
          'server_untrusted',
          `the server is of the trust domain ${trust.trustDomain.name}`,
        );
      }
      return trust;
    },
  };
}
