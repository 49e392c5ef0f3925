"""A folder of documents of every kind, good and bad, made anew for each test."""
import os
import zipfile

STORIES = {
    "lighthouse": "The keeper of the lighthouse polished the great lens every evening before he lit the lamp, so that ships far out at sea could find their way past the rocks.",
    "bakery": "The baker kneads the sourdough at three in the morning and bakes the loaves on hot stone, so the bread is fresh when the village wakes.",
    "volcano": "Under the volcano the magma chamber fills slowly; when the pressure becomes too great, lava and ash erupt through the crater.",
    "chess": "In the endgame of a chess match the king becomes a strong piece and marches to the centre of the board to support his passed pawns.",
    "bees": "Honey bees dance in the hive to tell their sisters in which direction and how far away the blossoming lime trees stand.",
    "violin": "The violin maker carves the belly from spruce and the back from maple, and varnishes the instrument in many thin layers.",
    "glacier": "The glacier carries boulders down the valley and leaves moraines behind when the ice melts at the end of the cold age.",
}


def write(folder, name, data):
    path = os.path.join(os.fsencode(folder), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())
    return path


def pdf(text):
    """A page with the text in lines of Helvetica."""
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 70:
            lines.append("")
        lines[-1] = (lines[-1] + " " + word).strip()
    shown = "".join(f"({line.replace('(', '[').replace(')', ']')}) Tj T*\n" for line in lines)
    stream = f"BT /F1 11 Tf 14 TL 72 720 Td\n{shown}ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, offsets = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    xref = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n" + "".join(f"{at:010d} 00000 n \n" for at in offsets)
    return (out + f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{xref}\n%%EOF\n").encode()


def write_docx(folder, name, text):
    body = "".join(f"<w:p><w:r><w:t>{part}</w:t></w:r></w:p>" for part in text.split("\n"))
    with zipfile.ZipFile(os.path.join(folder, name), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", '<?xml version="1.0" encoding="UTF-8"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
                         '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>'
                         '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>')
        archive.writestr("_rels/.rels", '<?xml version="1.0" encoding="UTF-8"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" '
                         'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>')
        archive.writestr("word/document.xml", '<?xml version="1.0" encoding="UTF-8"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
                         + body + "</w:body></w:document>")


GOOD = {  # file name -> the story in it
    b"lighthouse.txt": "lighthouse", b"bakery.md": "bakery", b"volcano.html": "volcano", b"chess.json": "chess", b"bees.csv": "bees",
    b"violin.docx": "violin", b"glacier.pdf": "glacier",
}
ODD_NAME = b"caf\xe9 \xff.txt"  # Latin-1, no UTF-8
ODD_TEXT = "The submarine dives below the thermocline, where the sonar of the destroyer above cannot hear its electric motors."
BAD = [b"broken.pdf", b"broken.docx", b"huge.txt"]
MAX_FILE_BYTES = 200_000  # the tests' setting


def write_mixed(folder):
    """Everything at once: GOOD, ODD_NAME, BAD, and things that are no documents at all (hidden, a fifo, a link to nowhere)."""
    write(folder, "lighthouse.txt", STORIES["lighthouse"] + "\n")
    write(folder, "bakery.md", "# The bakery\n\n" + STORIES["bakery"] + "\n")
    write(folder, "volcano.html", f"<html><head><title>Volcano</title><script>var junk = 1;</script></head><body><h1>Volcano</h1><p>{STORIES['volcano']}</p></body></html>")
    write(folder, "chess.json", '{"title": "Endgames", "text": "%s"}' % STORIES["chess"])
    write(folder, "bees.csv", f'topic,text\nbees,"{STORIES["bees"]}"\n')
    write_docx(folder, "violin.docx", STORIES["violin"])
    write(folder, "glacier.pdf", pdf(STORIES["glacier"]))
    write(folder, ODD_NAME, ODD_TEXT + "\n")
    write(folder, "broken.pdf", b"%PDF-1.7\nthis is no pdf at all\n")
    write(folder, "broken.docx", b"PK\x03\x04 not a zip")
    write(folder, "huge.txt", b"x " * MAX_FILE_BYTES)
    write(folder, ".hidden.txt", "hidden things stay hidden")
    os.mkfifo(os.path.join(folder, "pipe.txt"))
    os.symlink("/etc/passwd", os.path.join(folder, "link.txt"))


def write_many(folder, count, start=0):
    """Many small documents, each with a word of its own, a few sentences long."""
    stories = list(STORIES.values())
    for i in range(start, start + count):
        text = " ".join(stories[(i + j) % len(stories)] for j in range(4))
        write(folder, f"part{i // 100:02d}/note{i:05d}.txt", f"Note {i} of the archive, word mark{i:05d}x.\n{text}\n")
