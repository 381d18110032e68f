import { Command } from 'commander';
import { examples } from './help.ts';
import type { Session } from './session.ts';

/** `countersign openapi`. */
export function openapiCommand(session: Session): Command {
  return new Command('openapi')
    .description('print the OpenAPI document of the admin API of this version; no server is asked')
    .addHelpText('after', examples('openapi > countersign.openapi.json'))
    .action(async () => {
      // Loaded here: no other command needs the schemas of every route.
      const { createOpenApiDocument } = await import('../http/openapi.ts');
      session.write(`${JSON.stringify(createOpenApiDocument(), null, 2)}\n`);
    });
}
