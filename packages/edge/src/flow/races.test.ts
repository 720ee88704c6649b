import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import { ALPN_DATA } from '@postern/shared/protocol/frames'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import {
  type ApiAnswer,
  type Credential,
  DOMAIN,
  type EdgeStage,
  MYCORP,
  NOBODY,
  type Peer,
  type Person,
  startEdgeStage,
} from '../../test/edge-stage.ts'
import { newDatabase } from '../../test/postgres.ts'
import { type ServiceRecord, updateService } from '../store/services.ts'

/** Flows and changes against each other, each step delayed at random. The wanted order is the one in which both
 *  happen at once: the head start of the change follows the outcomes, so that the rounds stay where it is undecided
 *  who comes first, on a slow machine too. What must hold in every order is the same: once the change is answered,
 *  nothing passes any more, and nobody else notices. */

/** On each store. */
const ROUNDS = Number(process.env.POSTERN_RACE_ROUNDS ?? 200)
const SEED = Number(process.env.POSTERN_RACE_SEED ?? Math.floor(Math.random() * 2 ** 31))
/** Of each kind of change, and of both together as many as above. */
const ROUNDS_OF_EACH = Math.ceil(ROUNDS / 2)
/** How often a decision has to win, and a change. */
const MIN_OF_EACH = Math.floor(ROUNDS_OF_EACH / 20)

/** Mulberry32. */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Nothing, some turns of the microtask queue, some of the event loop, or a moment. */
async function delayAtRandom(random: () => number): Promise<void> {
  const kind = random()
  const turns = Math.floor(random() * 4)
  if (kind < 0.4) return
  if (kind < 0.9) {
    for (let turn = 0; turn <= turns; turn++) await (kind < 0.65 ? undefined : new Promise(setImmediate))
  } else await wait(turns)
}

/** A service with a connector that replaces each connection that is used, and keeps what came. */
class Scene {
  readonly stage: EdgeStage
  readonly owner: Person
  readonly service: ServiceRecord
  /** By the identity whose flow it is. */
  readonly opened: Map<string, { flowId: string; text: string }> = new Map()
  readonly ends: Map<string, FramedEnd> = new Map()
  readonly #credential: Credential
  #attachmentId = ''

  private constructor(stage: EdgeStage, owner: Person, service: ServiceRecord, credential: Credential) {
    this.stage = stage
    this.owner = owner
    this.service = service
    this.#credential = credential
  }

  static async set(stage: EdgeStage): Promise<Scene> {
    const owner = await stage.person('op@mycorp.com')
    const service = await stage.service(owner)
    const scene = new Scene(stage, owner, service, await stage.connectorCertificate(owner, service))
    scene.#attachmentId = (await stage.attach(scene.#credential)).attachmentId
    await scene.#openData()
    return scene
  }

  async #openData(): Promise<void> {
    const socket = await this.stage.dial({
      serverName: DOMAIN,
      alpn: [ALPN_DATA],
      credential: this.#credential,
    })
    const end = new FramedEnd(socket)
    const flow = { flowId: '', text: '' }
    end.receive({
      control: (_type, body) => {
        const open = body as { flowId: string; identity: { id: string } }
        flow.flowId = open.flowId
        this.opened.set(open.identity.id, flow)
        this.ends.set(open.identity.id, end)
        end.send('ok', { flowId: open.flowId })
        this.#openData().catch(() => {}) // the stage is gone
      },
      chunk: (bytes) => {
        flow.text += bytes
      },
      end: () => {},
      drain: () => {},
      cut: () => {},
    })
    end.resume()
    end.send('hello', { version: 1, attachmentId: this.#attachmentId })
  }
}

type Change = (scene: Scene, person: Person, nonce: string) => Promise<ApiAnswer>

const CHANGES: Record<string, Change> = {
  'the session ends': ({ stage }, person, nonce) => stage.api('DELETE', '/v1/session', { as: person, nonce }),
  'the allow-list loses the person': ({ stage, owner, service }, _person, nonce) =>
    stage.api('PATCH', `/v1/services/${service.label}`, {
      as: owner,
      body: { allow: { ...NOBODY, emailAddresses: ['bystander@mycorp.com'] } },
      nonce,
    }),
  'the service is deleted': ({ stage, owner, service }, _person, nonce) =>
    stage.api('DELETE', `/v1/services/${service.label}`, { as: owner, nonce }),
}

const REFUSALS = new Set(['FLOW_REVOKED', 'SESSION_ENDED', 'ACCESS_DENIED', 'CERTIFICATE_WRONG_SERVICE'])
const STORES: [string, () => Promise<{ store?: string }>][] = [
  ['SQLite', async () => ({})],
  ['PostgreSQL', async () => ({ store: await newDatabase() })],
]

for (const [storeName, storeConfig] of STORES) {
  describe(`flows against changes, on ${storeName}, seed ${SEED}`, () => {
    const random = randomOf(SEED)
    let stage: EdgeStage
    let nonce: string
    let headStartMs = 0
    let people = 0
    /** Identities whose flow was decided only after the change was answered. */
    const decidedLate = new Set<string>()

    before(async () => {
      stage = await startEdgeStage({ config: await storeConfig(), limits: { maxFlows: 10_000 } })
      stage.gates.delay = () => delayAtRandom(random)
      nonce = await stage.nonce()
    })
    after(() => stage[Symbol.asyncDispose]())

    /** @returns whether the flow had got through before the change */
    async function race(scene: Scene, name: string, round: number): Promise<boolean> {
      const { service } = scene
      const person = await stage.person(`p${people++}@mycorp.com`)
      const credential = await stage.clientCertificate(person, service)
      const spreadMs = (random() - 0.5) * 6
      const lead = headStartMs + spreadMs
      const flow = wait(Math.max(0, lead)).then(async () => {
        const client = await stage.openFlow(service, credential)
        client.end.write(Buffer.from('early'))
        return client
      })
      const answer = await wait(Math.max(0, -lead)).then(() => CHANGES[name]!(scene, person, nonce))
      assert.ok(answer.status < 300, answer.text)
      const isDecided = stage.gates.of('flow.decided').some(isOf(person))
      if (!isDecided) decidedLate.add(person.identity.id)
      const client = await flow
      client.end.write(Buffer.from('late'))
      const { code } = await client.cut()
      assert.ok(REFUSALS.has(code), `round ${round}: ${code}`)
      const wasOpened = scene.opened.has(person.identity.id)
      headStartMs = Math.min(100, Math.max(-100, headStartMs + (wasOpened ? 1 : -1)))
      return wasOpened
    }

    /** Looked at when everything that was under way has arrived. */
    function assertNothingLate(scene: Scene): void {
      for (const [identityId, { text }] of scene.opened) {
        assert.ok(!decidedLate.has(identityId), 'an open frame of a flow that was decided after the change')
        assert.doesNotMatch(text, /late/)
      }
    }

    for (const name of ['the session ends', 'the allow-list loses the person']) {
      it(`${name}: ${ROUNDS_OF_EACH} rounds, and a bystander who notices nothing`, async () => {
        const scene = await Scene.set(stage)
        const bystander = await stage.person('bystander@mycorp.com')
        const other = await stage.openFlow(
          scene.service,
          await stage.clientCertificate(bystander, scene.service),
        )
        await other.control()
        let passed = 0
        for (let round = 0; round < ROUNDS_OF_EACH; round++) {
          await updateService(stage.store.db, scene.service.id, { allow: MYCORP }, stage.now())
          passed += Number(await race(scene, name, round))
        }
        await passes(other, scene, bystander)
        assertNothingLate(scene)
        assert.ok(passed >= MIN_OF_EACH, `only ${passed} flows came before the change`)
        assert.ok(
          ROUNDS_OF_EACH - passed >= MIN_OF_EACH,
          `only ${ROUNDS_OF_EACH - passed} changes came before the flow`,
        )
      })
    }

    it('the service is deleted, with its connector', async () => {
      for (let round = 0; round < ROUNDS / 10; round++) {
        const scene = await Scene.set(stage)
        await race(scene, 'the service is deleted', round)
        assertNothingLate(scene)
      }
    })
  })
}

function isOf(person: Person): (event: { identityId?: string | undefined }) => boolean {
  return ({ identityId }) => identityId === person.identity.id
}

/** Both ways, through a flow that lives. */
async function passes(client: Peer, scene: Scene, person: Person): Promise<void> {
  client.end.write(Buffer.from('still here'))
  scene.ends.get(person.identity.id)!.write(Buffer.from('here too'))
  await client.text('here too')
  assert.equal(client.error, undefined)
}
