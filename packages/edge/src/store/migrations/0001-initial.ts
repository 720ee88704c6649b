import { type Kysely, PostgresAdapter } from 'kysely'

/** Everything Postern starts with. Portable: text, integer and bigint only; what differs is the row number of
 *  the audit log, which either database gives in its own way. Never edited once released: add a migration. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await createPeople(db)
  await createLogins(db)
  await createServices(db)
  await createCertificates(db)
  await createAudit(db)
}

async function createPeople(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('identities')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('issuer', 'text', (column) => column.notNull())
    .addColumn('subject', 'text', (column) => column.notNull())
    .addColumn('email', 'text', (column) => column.notNull())
    .addColumn('groups', 'text', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('last_login_at', 'bigint', (column) => column.notNull())
    .addUniqueConstraint('identities_issuer_subject', ['issuer', 'subject'])
    .execute()
  await db.schema
    .createTable('sessions')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('identity_id', 'text', (column) => column.notNull().references('identities.id'))
    .addColumn('grant_id', 'text', (column) => column.notNull().unique())
    .addColumn('kind', 'text', (column) => column.notNull())
    .addColumn('client_address', 'text', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('expires_at', 'bigint', (column) => column.notNull())
    .addColumn('ended_at', 'bigint')
    .addColumn('end_reason', 'text')
    .execute()
  await db.schema
    .createIndex('sessions_identity')
    .on('sessions')
    .columns(['identity_id', 'expires_at'])
    .execute()
}

async function createLogins(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('oidc_records')
    .addColumn('model', 'text', (column) => column.notNull())
    .addColumn('id_hash', 'text', (column) => column.notNull())
    .addColumn('payload', 'text', (column) => column.notNull())
    .addColumn('grant_id', 'text')
    .addColumn('user_code_hash', 'text')
    .addColumn('uid_hash', 'text')
    .addColumn('id_by_user_code', 'text')
    .addColumn('id_by_uid', 'text')
    .addColumn('expires_at', 'bigint')
    .addColumn('consumed_at', 'bigint')
    .addPrimaryKeyConstraint('oidc_records_key', ['model', 'id_hash'])
    .execute()
  for (const column of ['grant_id', 'user_code_hash', 'uid_hash', 'expires_at']) {
    await db.schema.createIndex(`oidc_records_${column}`).on('oidc_records').column(column).execute()
  }
  await db.schema
    .createTable('upstream_logins')
    .addColumn('state_hash', 'text', (column) => column.primaryKey())
    .addColumn('cookie_hash', 'text', (column) => column.notNull().unique())
    .addColumn('secrets', 'text', (column) => column.notNull())
    .addColumn('taken_at', 'bigint')
    .addColumn('account', 'text')
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('expires_at', 'bigint', (column) => column.notNull())
    .execute()
  await db.schema
    .createTable('replay_guards')
    .addColumn('key_hash', 'text', (column) => column.primaryKey())
    .addColumn('expires_at', 'bigint', (column) => column.notNull())
    .execute()
  for (const table of ['upstream_logins', 'replay_guards']) {
    await db.schema.createIndex(`${table}_expires_at`).on(table).column('expires_at').execute()
  }
}

async function createServices(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('services')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('label', 'text', (column) => column.notNull())
    .addColumn('name', 'text', (column) => column.notNull())
    .addColumn('type', 'text', (column) => column.notNull())
    .addColumn('owner_id', 'text', (column) => column.notNull().references('identities.id'))
    .addColumn('allow', 'text', (column) => column.notNull())
    .addColumn('revision', 'integer', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('updated_at', 'bigint', (column) => column.notNull())
    .addColumn('deleted_at', 'bigint')
    .execute()
  await db.schema
    .createIndex('services_label')
    .unique()
    .on('services')
    .column('label')
    .where('deleted_at' as never, 'is', null as never)
    .execute()
  await db.schema
    .createIndex('services_owner_name')
    .unique()
    .on('services')
    .columns(['owner_id', 'name'])
    .where('deleted_at' as never, 'is', null as never)
    .execute()
  await db.schema
    .createTable('labels')
    .addColumn('label', 'text', (column) => column.primaryKey())
    .addColumn('owner_id', 'text', (column) => column.notNull().references('identities.id'))
    .addColumn('service_id', 'text', (column) => column.notNull().references('services.id'))
    .execute()
}

async function createCertificates(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('certificates')
    .addColumn('serial', 'text', (column) => column.primaryKey())
    .addColumn('kind', 'text', (column) => column.notNull())
    .addColumn('key_hash', 'text', (column) => column.notNull())
    .addColumn('identity_id', 'text', (column) => column.notNull().references('identities.id'))
    .addColumn('session_id', 'text', (column) => column.references('sessions.id'))
    .addColumn('service_id', 'text', (column) => column.notNull().references('services.id'))
    .addColumn('connector_id', 'text')
    .addColumn('machine', 'text')
    .addColumn('not_before', 'bigint', (column) => column.notNull())
    .addColumn('not_after', 'bigint', (column) => column.notNull())
    .addColumn('issued_at', 'bigint', (column) => column.notNull())
    .addColumn('renewed_by', 'text')
    .addColumn('revoked_at', 'bigint')
    .addColumn('revoked_reason', 'text')
    .execute()
  for (const column of ['session_id', 'connector_id', 'service_id', 'not_after']) {
    await db.schema.createIndex(`certificates_${column}`).on('certificates').column(column).execute()
  }
}

async function createAudit(db: Kysely<unknown>): Promise<void> {
  const isPostgres = db.getExecutor().adapter instanceof PostgresAdapter
  await db.schema
    .createTable('audit_events')
    .addColumn('seq', isPostgres ? 'bigint' : 'integer', (column) =>
      isPostgres ? column.primaryKey().generatedAlwaysAsIdentity() : column.primaryKey().autoIncrement(),
    )
    .addColumn('at', 'bigint', (column) => column.notNull())
    .addColumn('type', 'text', (column) => column.notNull())
    .addColumn('flow_id', 'text')
    .addColumn('identity_id', 'text')
    .addColumn('service_id', 'text')
    .addColumn('event', 'text', (column) => column.notNull())
    .execute()
  await db.schema.createIndex('audit_events_type').on('audit_events').columns(['type', 'seq']).execute()
}
