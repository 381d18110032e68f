import { Command } from 'commander';
import { examples } from './help.ts';
import { print, type Session } from './session.ts';
import { version } from '../version.ts';

/** `countersign version`: asks no server. */
export function versionCommand(session: Session): Command {
  return new Command('version')
    .description('print the version of this program')
    .addHelpText('after', examples('version', 'version -o json'))
    .action((_options, command: Command) => {
      const found = { version, node: process.versions.node };
      print(session, command, found, () => `countersign ${found.version} (Node ${found.node})\n`);
    });
}
