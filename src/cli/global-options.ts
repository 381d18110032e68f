import type { Command } from 'commander';

/** The options every command has. */
export type GlobalOptions = {
  /** `csv` and `dot` only of commands that offer them. */
  readonly output: 'table' | 'json' | 'csv' | 'dot';
  readonly config?: string;
  readonly dataDir?: string;
  readonly socket?: string;
  readonly server?: string;
  readonly tokenFile?: string;
  readonly clientCert?: string;
  readonly clientKey?: string;
  readonly caFile?: string;
};

/** The options every command has, wherever on the line they stood. */
export function globalOptions(command: Command): GlobalOptions {
  return command.optsWithGlobals<GlobalOptions>();
}
