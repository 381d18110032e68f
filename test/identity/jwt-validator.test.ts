import { generateKeyPairSync } from 'node:crypto';
import { expect, test } from 'vitest';
import { prepareJwtSvid, signJwtSvid } from '../../src/ca/jwt.ts';
import { parseBan } from '../../src/identity/ban.ts';
import { indexBans, noBans } from '../../src/identity/ban-list.ts';
import { createJwtValidator } from '../../src/identity/jwt-validator.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { manualClock } from '../harness/manual-clock.ts';

const trustDomain = TrustDomain.parse('other.test');
const clock = manualClock();
const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }));
const bundle = { trustDomain, authorities: [{ keyId: 'k', publicKey: spki }], sequence: 1 };
const actor = { kind: 'system' } as const;

test.each<[banned: string, jti: string, code: string | undefined]>([
  ['40ab', '40ab', 'identity_banned'],
  ['40ab', '40AB', 'identity_banned'],
  ['40AB', '40Ab', 'identity_banned'],
  ['40:ab', '0040aB', 'identity_banned'],
  ['0abc', 'ABC', 'identity_banned'],
  ['40ab', '40ac', undefined],
  ['40ab', '40ab-1', undefined],
  ['40ab', 'b8d4a1c2-0000-4000-8000-0000000040ab', undefined],
])(
  'with a ban of the serial %s, a token of another issuer with the jti %s: %s',
  async (value, jwtId, code) => {
    const now = clock.now();
    const id = SpiffeId.parseWorkload('spiffe://other.test/web');
    const prepared = prepareJwtSvid(
      { id, audiences: ['db'], issuer: null, ttlSeconds: 60, keyId: 'k', jwtId },
      now,
    );
    const token = signJwtSvid(prepared, privateKey);
    const ban = parseBan({ kind: 'serial', value, reason: 'leaked' }, trustDomain, {
      actor,
      revision: 1,
      now,
    });
    const validate = (bans = noBans) =>
      createJwtValidator({ bundles: () => new Map([['other.test', bundle]]), bans: () => bans, clock })(
        token,
        'db',
      );
    await expect(validate()).resolves.toMatchObject({ id });
    const judged = validate(indexBans([ban]));
    if (code === undefined) await expect(judged).resolves.toMatchObject({ id });
    else await expect(judged).rejects.toMatchObject({ code });
  },
);
