import assert from 'node:assert/strict'
import { test } from 'node:test'
import { expectsBrowser, isWsl, type Surroundings, windowsOpeners } from './expect-browser.ts'

function at(env: NodeJS.ProcessEnv, more: Partial<Surroundings> = {}): Surroundings {
  return { env, platform: 'linux', kernel: '6.1.0-generic', hasProgram: () => false, ...more }
}

const SSH = { SSH_CONNECTION: '1.2.3.4 5 6.7.8.9 22' }
const WSL = { kernel: '5.15.153.1-microsoft-standard-WSL2' }

test('a browser is expected at a display, and nowhere else', () => {
  const table: [string, boolean, Surroundings, (string | false)?][] = [
    ['X11', true, at({ DISPLAY: ':0' })],
    ['Wayland', true, at({ WAYLAND_DISPLAY: 'wayland-0' })],
    ['no display', false, at({})],
    ['an empty display', false, at({ DISPLAY: '', WAYLAND_DISPLAY: '' })],
    ['inside ssh', false, at(SSH)],
    ['inside ssh with a forwarded display', false, at({ ...SSH, DISPLAY: 'localhost:10.0' })],
    ['a terminal of ssh', false, at({ SSH_TTY: '/dev/pts/1', DISPLAY: ':0' })],
    ['a Mac', true, at({}, { platform: 'darwin' })],
    ['a Mac through ssh', false, at(SSH, { platform: 'darwin' })],
    ['Windows', true, at({}, { platform: 'win32' })],
    ['WSL with wslview', true, at({}, { ...WSL, hasProgram: (name) => name === 'wslview' })],
    ['WSL with explorer', true, at({}, { ...WSL, hasProgram: (name) => name === 'explorer.exe' })],
    ['WSL without Windows', false, at({}, WSL)],
    ['ssh into WSL', false, at(SSH, { ...WSL, hasProgram: () => true })],
    ['--no-browser at a display', false, at({ DISPLAY: ':0' }), false],
    ['--no-browser with $BROWSER', false, at({ BROWSER: 'w3m' }), false],
    ['--browser inside ssh', true, at(SSH), 'w3m'],
    ['$BROWSER inside ssh', true, at({ ...SSH, BROWSER: 'w3m' })],
  ]
  for (const [what, expected, around, browser] of table) {
    assert.equal(expectsBrowser(browser, around), expected, what)
  }
})

test('WSL is told by its variables or its kernel; wslview comes before explorer', () => {
  assert.ok(isWsl(at({ WSL_DISTRO_NAME: 'Debian' })))
  assert.ok(isWsl(at({}, WSL)))
  assert.ok(!isWsl(at({})))
  assert.ok(!isWsl(at({ WSL_DISTRO_NAME: 'x' }, { platform: 'darwin' })))
  assert.deepEqual(windowsOpeners(at({}, { hasProgram: () => true })), ['wslview', 'explorer.exe'])
})
