// What comes in from the clipboard or a drop: line ends become \n, and a text beyond the limit is refused as a whole.
import { EditorState, type Extension } from "@codemirror/state";
import { EditorView } from "@codemirror/view";

export function pasting(textBytes: number, onTooLarge: () => void): Extension {
  return [
    EditorView.clipboardInputFilter.of((text) => text.replace(/\r\n?/g, "\n")),
    EditorState.changeFilter.of((transaction) => {
      const grows = transaction.newDoc.length > transaction.startState.doc.length;
      // A UTF-16 unit is at most 3 bytes of UTF-8: small texts need no counting.
      if (!grows || transaction.newDoc.length * 3 <= textBytes || !transaction.isUserEvent("input")) return true;
      if (new TextEncoder().encode(transaction.newDoc.toString()).byteLength <= textBytes) return true;
      onTooLarge();
      return false;
    }),
  ];
}
