import { type Command, Option } from 'commander';
import { auditEventTypes } from '../audit/question.ts';
import { repeated } from './arguments.ts';

/** The filters of questions to the log, by the names the API has for them. */
export type FilterOptions = {
  readonly since?: string;
  readonly until?: string;
  readonly type?: readonly string[];
  readonly source?: string;
  readonly destination?: string;
  readonly verdict?: string;
  readonly serial?: string;
  readonly where?: readonly string[];
  readonly text?: string;
};

/** Adds the filters to a command. */
export function auditFilters(command: Command): Command {
  return command
    .option('--since <time>', 'a time ago such as 10m, 2h or 7d, or RFC 3339')
    .option('--until <time>', 'the same')
    .option('--type <type>', `${auditEventTypes.join(', ')}; may be repeated`, repeated)
    .option('--source <id>', 'SPIFFE ID of the caller, or of the owner of a certificate')
    .option('--destination <id>', 'SPIFFE ID of the called service')
    .addOption(new Option('--verdict <verdict>', 'of decisions').choices(['allow', 'deny']))
    .option('--serial <hex>', 'serial number of a certificate')
    .option(
      '--where <condition>',
      'field=value, field!=value or field~text (contains); may be repeated',
      repeated,
    )
    .option('--text <words>', 'words that stand one after the other in a record');
}
