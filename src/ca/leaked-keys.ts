/**
 * Public keys whose private halves are printed where everybody can read them, by the SHA-256 of their
 * SubjectPublicKeyInfo, and where. They turn up in certificates because somebody copied an example. Lists of weak or
 * stolen keys are too long for a program: give those as a file (`refusedKeysFile`). test/ca/refused-keys.test.ts makes
 * each hash again from the private key that is published.
 */
export const leakedKeys: ReadonlyMap<string, string> = new Map([
  ['5cd252fb0ce8932436faf8ccd1040981b89ee4ad6b9fe9e2a2b7e71aacb27cd3', 'the private key 1 on P-256'],
  ['29f8fe74f38c49d49810cec736a26732a30bff2e64827b709a1c63340d4f7181', 'the private key 1 on P-384'],
  ['5a7a78cca4a0f420d9bc62bb669c3c2759e39f723d3ae10dcbe0f0815a07ecd4', 'RFC 6979 appendix A.2.5'],
  ['2f95601fa82060b909bfc6b979dbd303d34d34e0afb27ea496beac362f242a4b', 'RFC 6979 appendix A.2.6'],
  ['2bd1bb0c44a897c30a7aa0991cde38d8062fe441de50da0f46825344f602e827', 'RFC 7515 appendix A.3'],
  ['55f96361b78cbb84f1fc604b0718e82bd91abb46d8fc25ae871b35fbbf8b7974', 'RFC 9421 appendix B.1.3'],
  ['8fb6bad671cfe698393c453357da61b56d757ab8c0f3fb9c87f2849e63131878', 'RFC 9500 section 2.1'],
  ['b2b04340cfaee616ec9c2c62d261b208e54bb197498df52e8cadede23ac0ba5e', 'RFC 9500 section 2.3'],
  ['389f9ede520dbc33d2aebc489246ad89e221d1ec15f693c348c58b08219367aa', 'net/http/internal/testcert of Go'],
]);
