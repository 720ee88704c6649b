/** Goes before a program with `--import`: notes in the file POSTERN_TEST_LOADS every file that is loaded, and at the
 *  end every module of Node. Takes what it needs from the process, because an import would load more of Node. */

const { appendFileSync } = process.getBuiltinModule('node:fs')
const { registerHooks } = process.getBuiltinModule('node:module')
const record = process.env.POSTERN_TEST_LOADS!

registerHooks({
  load(url, context, nextLoad) {
    appendFileSync(record, `${url}\n`)
    return nextLoad(url, context)
  },
})
process.on('exit', () => {
  const { moduleLoadList } = process as unknown as { moduleLoadList: string[] }
  const modules = moduleLoadList.flatMap((entry) => /^NativeModule (.*)/.exec(entry)?.[1] ?? [])
  appendFileSync(record, modules.map((name) => `node:${name}\n`).join(''))
})
