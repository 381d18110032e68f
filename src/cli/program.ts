import { Command, Option } from 'commander';
import { adminCommand } from './admin-command.ts';
import { agentCommand } from './agent-command.ts';
import { applyCommand } from './apply-command.ts';
import { auditCommand } from './audit-command.ts';
import { authzCommand } from './authz-command.ts';
import { backupCommand, restoreCommand } from './backup-command.ts';
import { banCommand, unbanCommand } from './ban-command.ts';
import { caCommand } from './ca-command.ts';
import { checkCommand } from './check-command.ts';
import { refuseCsv } from './csv.ts';
import { entryCommand } from './entry-command.ts';
import { envoyCommand } from './envoy-command.ts';
import { refuseDot } from './graph-dot.ts';
import { examples } from './help.ts';
import { inspectCommand } from './inspect-command.ts';
import { jwtCommand } from './jwt-command.ts';
import { nodeCommand } from './node-command.ts';
import { openapiCommand } from './openapi-command.ts';
import { policyCommand } from './policy-command.ts';
import { serverCommand } from './server-command.ts';
import type { Session } from './session.ts';
import { statusCommand } from './status-command.ts';
import { svidCommand } from './svid-command.ts';
import { tokenCommand } from './token-command.ts';
import { trustBundleCommand } from './trust-bundle-command.ts';
import { upCommand } from './up-command.ts';
import { version } from '../version.ts';
import { versionCommand } from './version-command.ts';

/** The whole command line. Every command is added here and nowhere else. */
export function createProgram(session: Session): Command {
  const program = new Command('countersign')
    .description('The identity plane of a service mesh: certificates, policy, audit.')
    .addOption(
      new Option('-o, --output <format>', 'how to print')
        .choices(['table', 'json', 'csv', 'dot'])
        .default('table'),
    )
    .option('--config <file>', 'configuration file (COUNTERSIGN_CONFIG)')
    .option('--data-dir <dir>', 'data directory; its admin socket is the one used (COUNTERSIGN_DATA_DIR)')
    .option('--socket <path>', 'admin socket (COUNTERSIGN_ADMIN_SOCKET)')
    .option('--server <url>', 'admin API over TLS instead of the socket (COUNTERSIGN_SERVER)')
    .option('--token-file <file>', 'bearer token for --server, mode 0600 (COUNTERSIGN_TOKEN_FILE)')
    .option('--client-cert <file>', 'X509-SVID for --server in place of a token (COUNTERSIGN_CLIENT_CERT)')
    .option('--client-key <file>', 'its private key, mode 0600 (COUNTERSIGN_CLIENT_KEY)')
    .option('--ca-file <file>', 'PEM that --server must chain to (COUNTERSIGN_CA_FILE)')
    .version(`countersign ${version}`, '-V, --version', 'print the version of this program')
    .addHelpText('after', examples('up', 'apply -f mesh.yaml', 'audit list --since 10m --verdict deny'))
    .exitOverride()
    .hook('preAction', (_, command) => {
      refuseCsv(command);
      refuseDot(command);
    })
    .showSuggestionAfterError(true)
    .helpCommand(false)
    .configureHelp({ showGlobalOptions: true })
    // Errors are printed in one place: run.ts.
    .configureOutput({ writeOut: session.write, writeErr: session.say, outputError: () => undefined });
  const commands = [
    upCommand(session),
    serverCommand(session),
    agentCommand(session),
    nodeCommand(session),
    statusCommand(session),
    checkCommand(session),
    entryCommand(session),
    applyCommand(session),
    policyCommand(session),
    authzCommand(session),
    banCommand(session),
    unbanCommand(session),
    auditCommand(session),
    backupCommand(session),
    restoreCommand(session),
    caCommand(session),
    jwtCommand(session),
    tokenCommand(session),
    adminCommand(session),
    trustBundleCommand(session),
    envoyCommand(session),
    svidCommand(session),
    inspectCommand(session),
    openapiCommand(session),
    versionCommand(session),
  ];
  for (const command of commands) {
    inherit(program, command);
    program.addCommand(command);
  }
  return program;
}

function inherit(parent: Command, command: Command): void {
  // `agent` and `agent files` both have --workload-socket: what stands behind `files` is for it.
  const ownsOptions = command.commands.some((inner) =>
    inner.options.some(({ long }) => long !== undefined && command.options.some((own) => own.long === long)),
  );
  command.copyInheritedSettings(parent).helpCommand(false).enablePositionalOptions(ownsOptions);
  for (const inner of command.commands) inherit(command, inner);
}
