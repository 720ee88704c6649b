import { newDatabase } from '../../test/postgres.ts'
import { describeAcmeTables } from './acme-suite.ts'
import { describeAuditTables } from './audit-suite.ts'
import { describeChanges } from './changes-suite.ts'
import { describeDomainTables } from './domain-suite.ts'
import { describeEdgeKeys } from './edge-keys-suite.ts'
import { describeEnrollTokens } from './enroll-suite.ts'
import { describeLoginTables, type StoreFactory } from './login-suite.ts'
import { openStore } from './open.ts'
import { describePolicies } from './policies-suite.ts'
import { describeRaces } from './race-suite.ts'
import { describeSsh } from './ssh-suite.ts'

/** The suites say what a store must do; each database has to pass them. */
const DATABASES: Readonly<Record<string, StoreFactory>> = {
  sqlite: (clock) => openStore('sqlite::memory:', clock),
  postgres: async (clock) => openStore(await newDatabase(), clock),
}

for (const [name, openEmpty] of Object.entries(DATABASES)) {
  describeLoginTables(name, openEmpty)
  describeDomainTables(name, openEmpty)
  describeAuditTables(name, openEmpty)
  describeChanges(name, openEmpty)
  describeEdgeKeys(name, openEmpty)
  describeEnrollTokens(name, openEmpty)
  describePolicies(name, openEmpty)
  describeRaces(name, openEmpty)
  describeSsh(name, openEmpty)
  describeAcmeTables(name, openEmpty)
}
