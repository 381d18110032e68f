import { Command } from 'commander';
import { loadConfig } from '../config.ts';
import { repeated } from './arguments.ts';
import { renderEnvoyBootstrap } from './envoy-bootstrap.ts';
import type { EnvoyBootstrapOptions } from './envoy-bootstrap-options.ts';
import { examples } from './help.ts';
import { globalOptions } from './global-options.ts';
import { type Session } from './session.ts';

type BootstrapOptions = Omit<EnvoyBootstrapOptions, 'socket'> & { readonly workloadSocket?: string };

/** `countersign envoy bootstrap`. */
export function envoyCommand(session: Session): Command {
  const group = new Command('envoy')
    .description('configuration for Envoy proxies')
    .addHelpText('after', examples(...bootstrapExamples));
  group
    .command('bootstrap')
    .description(
      'print a complete Envoy bootstrap for the sidecar of a workload (YAML, or JSON with -o json)',
    )
    .requiredOption('--workload <id>', 'SPIFFE ID of the workload')
    .option('--workload-socket <path>', "the server's workload socket (the configured one when left out)")
    .option('--inbound <host:port>', 'where peers reach the workload over mTLS; needs --app')
    .option('--app <host:port>', 'where the application listens')
    .option(
      '--inbound-tcp <host:port=host:port>',
      'mTLS to a TCP application whose clients speak first, each connection subject to policy; may be repeated',
      repeated,
    )
    .option(
      '--inbound-tcp-open <host:port=host:port>',
      'the same without a policy, for every caller of the trust domain; may be repeated',
      repeated,
    )
    .option('--outbound <host:port=id@host:port>', 'HTTP to exactly that identity; may be repeated', repeated)
    .option('--outbound-tcp <host:port=id@host:port>', 'the same for TCP; may be repeated', repeated)
    .option('--admin <address>', "Envoy's admin: a socket's path, or a loopback host:port")
    .option('--access-log <file>', 'stdout, or a path')
    .option('--access-log-stream <on|off>', 'whether the audit log is told what the proxy sees of peers (on)')
    .option('--max-connection-duration <duration>', 'how long a connection may live, 10s to 24h')
    .option('--decision-timeout <duration>', 'how long a call may wait for its decision, 50ms to 10s (250ms)')
    .option('--node-id <id>', 'name of the proxy in its own logs')
    .option('--xds <form>', 'how certificates are asked for: sds, delta-sds, ads or delta-ads (sds)')
    .option(
      '--decide <where>',
      'who decides calls: agent, or in-proxy by a policy the agent delivers (agent)',
    )
    .addHelpText('after', examples(...bootstrapExamples))
    .action(({ workloadSocket, ...options }: BootstrapOptions, command: Command) => {
      const global = globalOptions(command);
      const { workloadSocket: socket } = loadConfig({
        flags: {
          ...(workloadSocket === undefined ? {} : { workloadSocket }),
          ...(global.dataDir === undefined ? {} : { dataDir: global.dataDir }),
        },
        environment: session.environment,
        file: global.config ?? null,
        isRoot: session.isRoot,
      });
      session.write(renderEnvoyBootstrap({ ...options, socket }, global.output === 'json' ? 'json' : 'yaml'));
    });
  return group;
}

const bootstrapExamples = [
  'envoy bootstrap --workload spiffe://mesh.internal/ns/shop/sa/web --inbound 0.0.0.0:15443 --app 127.0.0.1:8080 > envoy.yaml',
];
