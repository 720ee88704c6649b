import { CHANGES_CHANNEL, type Message } from './changes.ts'
import type { PostgresLocation } from './location.ts'
import { clientConfig } from './postgres.ts'

/** The way by which edges on one PostgreSQL hear of each other. Says nothing of what they do about it. */
export interface ChangeFeed {
  /** Whose name is on what this store says: one for each time it is opened. */
  readonly edge: string
  /** Resolves once everything that is committed from now on is heard. What an end has taken along is not told again.
   *  @throws whatever the database answers */
  listen(ears: { onPayload: (payload: string) => void; onEnd: () => void }): Promise<Listening>
}

export interface Listening {
  /** To all who listen, this one too. */
  say(message: Message): Promise<void>
  /** `onEnd` is not called any more. */
  close(): void
}

export function openChangeFeed(edge: string, location: PostgresLocation): ChangeFeed {
  return {
    edge,
    async listen({ onPayload, onEnd }) {
      const { Client } = await import('pg')
      const client = new Client({
        ...(await clientConfig(location, { edge })),
        application_name: 'postern-edge listens',
      })
      let isClosed = false
      const end = () => {
        if (!isClosed) onEnd()
      }
      const close = () => {
        isClosed = true
        client.end().catch(() => {})
        client.connection.stream.destroy() // one that went silent would wait for its goodbye
      }
      // the end follows; an error event that nobody listens to would end the process
      client.on('error', () => {})
      client.on('notification', ({ payload = '' }) => onPayload(payload))
      try {
        await client.connect()
        await client.query(`listen ${CHANGES_CHANNEL}`)
      } catch (error) {
        close()
        throw error
      }
      client.on('end', end)
      const say = async (message: Message) => {
        const payload = `${edge} ${JSON.stringify(message)}`
        await client.query('select pg_notify($1, $2)', [CHANGES_CHANNEL, payload])
      }
      return { say, close }
    },
  }
}
