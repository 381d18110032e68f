import type { AdminEvent } from '../../src/audit/event.ts';
import type { AdminToken } from '../../src/identity/admin-token.ts';
import { noon } from '../audit/events.ts';

/** A token whose all is derived from its ID. */
export function tokenOf(id: string): AdminToken {
  return {
    id,
    grants: [{ role: 'viewer', namespaces: null }],
    label: `token ${id}`,
    secretSha256: id.repeat(4),
    createdAt: noon,
    expiresAt: new Date('2036-01-31T12:00:00.000Z'),
  };
}

/** What the log has about {@link tokenOf}. */
export function tokenCreated(id: string): AdminEvent {
  return {
    type: 'admin',
    time: noon,
    action: 'token_created',
    actor: { kind: 'system' },
    method: 'POST',
    route: '/v1/tokens',
    code: '',
    detail: id,
    sourceAddress: { personal: '192.0.2.7' },
  };
}
