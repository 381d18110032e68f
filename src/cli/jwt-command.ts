import { Command } from 'commander';
import { MeshError } from '../errors.ts';
import type { JwtView, ValidatedJwtView } from '../http/jwt-routes.ts';
import { repeated } from './arguments.ts';
import { examples } from './help.ts';
import { readInput, textOfInput } from './inspect-input.ts';
import { parseLifetime } from './lifetime.ts';
import { clientOf, print, type Session } from './session.ts';
import { formatPairs, printableJson } from './text.ts';

/** `countersign jwt ...`. */
export function jwtCommand(session: Session): Command {
  const group = new Command('jwt')
    .description('mint and validate tokens (JWT-SVIDs), and print the keys that verify them')
    .addHelpText('after', examples(mint, 'jwt validate token.jwt --audience db', 'jwt bundle'));
  group
    .command('mint')
    .description(
      'mint a token for a registered identity and print it; who has it is that identity, so keep it out of logs',
    )
    .option('--spiffe-id <id>', 'the identity; an entry must have it')
    .option('--entry <id>', 'or the entry, when several have the same identity')
    .option('--audience <name>', 'whom the token is for; may be repeated', repeated)
    .option('--ttl <duration>', 'a shorter life than the configured one, such as 60s', parseLifetime)
    .addHelpText('after', examples(mint, `${mint} --ttl 60s -o json`))
    .action(async (options: MintOptions, command: Command) => {
      const { spiffeId, entry, audience, ttl } = options;
      if ((spiffeId === undefined) === (entry === undefined) || audience === undefined) {
        throw new MeshError(
          'usage',
          'a token needs a --spiffe-id or an --entry, and at least one --audience',
          {
            fix: `for example: countersign ${mint}`,
          },
        );
      }
      const body = {
        ...(spiffeId === undefined ? { entryId: entry } : { spiffeId }),
        audience,
        ...(ttl === undefined ? {} : { ttlSeconds: ttl }),
      };
      const minted = await clientOf(session, command).post<JwtView>('/v1/jwt/mint', body);
      // INVARIANT: nothing but the token, so that it can be piped to where it is wanted.
      print(session, command, minted, () => `${checkedToken(minted.token)}\n`);
    });
  group
    .command('validate <file>')
    .description('validate a token for an audience, against the keys and bans in force; - is standard input')
    .option('--audience <name>', 'whom the token must be meant for')
    .addHelpText(
      'after',
      examples('jwt validate token.jwt --audience db', 'jwt validate - --audience db < token.jwt'),
    )
    .action(async (file: string, { audience }: { audience?: string }, command: Command) => {
      if (audience === undefined) {
        throw new MeshError('usage', 'validation needs an --audience', {
          fix: 'name the service that the token is presented to',
        });
      }
      const token = textOfInput(await readInput(file));
      const valid = await clientOf(session, command).post<ValidatedJwtView>('/v1/jwt/validate', {
        token,
        audience,
      });
      print(session, command, valid, () => formatValid(valid));
    });
  group
    .command('bundle')
    .description('print the public keys that verify tokens of this trust domain, as a JWK set')
    .addHelpText('after', examples('jwt bundle > keys.json', 'inspect jwt token.jwt --bundle keys.json'))
    .action(async (_options: unknown, command: Command) => {
      const bundle = await clientOf(session, command).get<unknown>('/v1/jwt/bundle');
      session.write(`${printableJson(bundle)}\n`);
    });
  return group;
}

type MintOptions = {
  readonly spiffeId?: string;
  readonly entry?: string;
  readonly audience?: readonly string[];
  readonly ttl?: number;
};

function formatValid({ spiffeId, audiences, keyId, expiresAt, claims }: ValidatedJwtView): string {
  const known = new Set(['sub', 'aud', 'exp']);
  const others = Object.entries(claims).filter(([name]) => !known.has(name));
  return formatPairs([
    ['SPIFFE ID', spiffeId],
    ['audience', audiences.join(', ')],
    ['expires', expiresAt],
    ['key', keyId],
    ...others.map(([name, value]) => [name, JSON.stringify(value)] as const),
  ]);
}

// The text of a server that is printed as it is, so it may hold nothing that a token cannot.
function checkedToken(token: string): string {
  return token.replace(/[^A-Za-z0-9._-]/g, '');
}

const mint = 'jwt mint --spiffe-id spiffe://mesh.internal/ns/shop/sa/web --audience db';
