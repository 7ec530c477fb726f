// Files: chosen or dropped -> one File, heard in a player; and how long it is.

// onfile(file): for a file that somebody gives to a <label class="drop">, or drops on its panel.
export function takeFiles(panel, onfile) {
  const zone = panel.querySelector('.drop');
  const input = zone.querySelector('input');
  input.addEventListener('change', () => {
    if (input.files[0]) onfile(input.files[0]);
    input.value = '';
  });
  for (const type of ['dragover', 'dragleave', 'drop']) {
    panel.addEventListener(type, event => {
      event.preventDefault();
      zone.classList.toggle('over', type === 'dragover');
      if (type === 'drop' && event.dataTransfer.files[0]) onfile(event.dataTransfer.files[0]);
    });
  }
}

const PATIENCE_MS = 3000;

// Let a player hold a file. Resolves to its seconds, or undefined where the browser cannot play it.
export function play(player, file) {
  if (player.src) URL.revokeObjectURL(player.src);
  player.hidden = false;
  player.src = URL.createObjectURL(file);
  return new Promise(resolve => {
    setTimeout(resolve, PATIENCE_MS);
    player.onloadedmetadata = () => resolve(Number.isFinite(player.duration) ? player.duration : undefined);
    player.onerror = () => {
      player.hidden = true;
      resolve(undefined);
    };
  });
}

export function tooLarge(file, most) {
  const limit = `${Math.round(most / 1048576)} MB`;
  return file.size > most ? `${file.name} is larger than ${limit}, which is the most here: start the server with --max-upload.` : '';
}
