#!/usr/bin/env python3
"""Writes tests/golden/documents/: small files of every kind that the extractor reads, and some that it must refuse.

Standard library only; the files are the same at every run."""
import hashlib
import io
import pathlib
import struct
import zipfile

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/documents"
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def put(name, content):
    (OUT / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def zipped(parts, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        for name, content in parts.items():
            z.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content, method)
    return out.getvalue()


def docx(body, head='<?xml version="1.0" encoding="UTF-8"?>', styles=None):
    styles = styles or (f'<w:styles {W}><w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
                        f'<w:style w:type="paragraph" w:styleId="Sub"><w:name w:val="Custom"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>'
                        '</w:styles>')
    return zipped({
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>',
        "docProps/core.xml": '<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A  Field\nGuide</dc:title><dc:creator>Nobody</dc:creator></cp:coreProperties>',
        "word/document.xml": f'{head}<w:document {W} xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"><w:body>{body}</w:body></w:document>',
        "word/styles.xml": styles,
    })


def para(text, style=None, extra=""):
    props = (f'<w:pStyle w:val="{style}"/>' if style else "") + extra
    return f"<w:p><w:pPr>{props}</w:pPr><w:r><w:t xml:space=\"preserve\">{text}</w:t></w:r></w:p>"


def cell(text):
    return f"<w:tc>{para(text)}</w:tc>"


GUIDE = (para("Owls", "berschrift1") + para("Owls hunt at night &amp; sleep by day.") + para("Food", "Sub") +
         para("mice", extra="<w:numPr><w:numId w:val=\"1\"/></w:numPr>") + para("voles", extra="<w:numPr><w:numId w:val=\"1\"/></w:numPr>") +
         f"<w:tbl><w:tr>{cell('Kind')}{cell('Size')}</w:tr><w:tr>{cell('Barn owl')}{cell('34 cm')}</w:tr></w:tbl>" +
         "<w:p><w:r><w:t>Split </w:t></w:r><w:r><w:t>runs</w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
         "<w:r><w:instrText>HYPERLINK</w:instrText></w:r><w:r><w:br/><w:t>next line</w:t></w:r></w:p>")


def pdf(pages, encrypt=None, title=None):
    """A PDF of plain lines in Helvetica; encrypt = (user password, owner password) for RC4 of 40 bits (revision 2)."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", None, "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for lines in pages:
        drawn = b"BT /F1 12 Tf 72 720 Td 14 TL " + b" ".join(b"(" + line.encode("latin-1") + b") Tj T*" for line in lines) + b" ET"
        objects.append(drawn)
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R "
                       "/Resources << /Font << /F1 3 0 R >> >> >>")
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    trailer = ""
    if title:
        objects.append(f"<< /Title ({title}) >>")
        trailer += f" /Info {len(objects)} 0 R"
    key = None
    if encrypt:
        key, entry = encryption(*encrypt)
        objects.append(entry)
        trailer += f" /Encrypt {len(objects)} 0 R /ID [<{'00' * 16}> <{'00' * 16}>]"
    out = io.BytesIO()
    out.write(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, o in enumerate(objects, 1):
        offsets.append(out.tell())
        if isinstance(o, bytes):
            if key:
                o = rc4(hashlib.md5(key + struct.pack("<I", number)[:3] + b"\0\0").digest()[:10], o)
            o = f"<< /Length {len(o)} >>\nstream\n".encode() + o + b"\nendstream"
        out.write(f"{number} 0 obj\n".encode() + (o if isinstance(o, bytes) else o.encode("latin-1")) + b"\nendobj\n")
    start = out.tell()
    out.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode())
    for at in offsets:
        out.write(f"{at:010d} 00000 n \n".encode())
    out.write(f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R{trailer} >>\nstartxref\n{start}\n%%EOF\n".encode())
    return out.getvalue()


def rc4(key, data):
    s = list(range(256))
    j = 0
    for i in range(256):
        j = (j + s[i] + key[i % len(key)]) % 256
        s[i], s[j] = s[j], s[i]
    out, i, j = bytearray(), 0, 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + s[i]) % 256
        s[i], s[j] = s[j], s[i]
        out.append(byte ^ s[(s[i] + s[j]) % 256])
    return bytes(out)


PAD = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


def encryption(user, owner):
    user, owner = (user.encode() + PAD)[:32], (owner.encode() + PAD)[:32]
    o = rc4(hashlib.md5(owner).digest()[:5], user)
    permissions = -4
    key = hashlib.md5(user + o + struct.pack("<i", permissions) + b"\0" * 16).digest()[:5]
    u = rc4(key, PAD)
    return key, f"<< /Filter /Standard /V 1 /R 2 /O <{o.hex()}> /U <{u.hex()}> /P {permissions} >>"


PAGE = """<!DOCTYPE html>
<html><head><title>Owls &mdash; a
 page</title><style>p { color: red }</style><script>var hidden = "<p>no</p>";</script></head>
<body><nav><a href="/">Home</a></nav><h1>Owls</h1><p>Owls hunt&nbsp;at <b>night</b> &amp; sleep
by day.<br>Caf\u00e9 &#8364; &eacute;</p><h2>Food</h2><ul><li>mice<li><p>voles</p></ul>
<table><tr><th>Kind</th><th>Size</th></tr><tr><td>Barn owl</td><td>34 cm</td></tr></table>
<pre>  keep
    this</pre><p>unclosed <i>text
</body></html>
"""


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    put("plain.txt", "First line.\r\nSecond line\fNew page\r\n\r\n\r\n\r\n\r\nEnd\x07 here\u00ad.\n")
    put("notes.md", "# Notes\n\nSome *text*.\n")
    put("table.csv", "name;size\nbarn owl;34\n")
    put("data.json", '{"name": "owl", "sizes": [34, 60]}\n')
    put("latin1.txt", "Gr\u00fc\u00dfe aus K\u00f6ln: na\u00efve fa\u00e7ade, \u00e0 bient\u00f4t, ma\u00f1ana. Die Stra\u00dfe ist f\u00fcr Fu\u00dfg\u00e4nger.\n".encode("latin-1"))
    put("utf16le.txt", b"\xff\xfe" + "Gr\u00fc\u00dfe \U0001f989\n".encode("utf-16-le"))
    put("utf16be.txt", "Plain words in two bytes each\n".encode("utf-16-be"))
    put("sjis.txt", "\u5439\u96ea\u306e\u591c\u3001\u689f\u306f\u68ee\u306e\u4e2d\u3067\u72e9\u308a\u3092\u3057\u307e\u3059\u3002\u663c\u9593\u306f\u6728\u306e\u4e2d\u3067\u7720\u308a\u307e\u3059\u3002\n".encode("cp932"))
    put("damaged-utf8.txt", "\u00e4\u00f6\u00fc\u00df ".encode() * 10 + b"\xff end\n")
    put("page.html", PAGE)
    put("page-1251.html", '<html><head><meta charset="windows-1251"></head><body><p>\u0421\u043e\u0432\u044b \u043e\u0445\u043e\u0442\u044f\u0442\u0441\u044f</p></body></html>'.encode("cp1251"))
    put("guide.docx", docx(GUIDE))
    put("entities.docx", docx(para("&bomb;"), '<?xml version="1.0"?><!DOCTYPE w [<!ENTITY a "aaaaaaaaaa"><!ENTITY bomb "&a;&a;&a;">]>'))
    put("cut.docx", docx(GUIDE)[:700])
    put("malformed.docx", docx("<w:p><w:r><w:t>never closed"))
    put("bomb.docx", docx("<w:p><w:r><w:t>" + " " * (300 << 20) + "</w:t></w:r></w:p>"))
    put("archive.zip", zipped({"readme.txt": "hello"}))
    put("not-a-document.docx", zipped({"readme.txt": "hello"}))
    put("two-pages.pdf", pdf([["Owls hunt at night", "and sleep by day."], ["Contents . . . . . . . . . 9"]], title="About Owls"))
    put("secret.pdf", pdf([["hidden words"]], ("user", "owner")))
    put("damaged.pdf", b"%PDF-1.4\nnothing of a PDF follows\n")
    put("no-text.pdf", pdf([[]]))
    put("empty.txt", b"")
    put("blank.txt", b" \n\t\n")
    put("nuls.bin", b"abc\0def\0\0\0" * 20)
    put("picture.png", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0) + b"\0" * 16)
    put("picture.svg", '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><text>no</text></svg>\n')
    put("letter.rtf", r"{\rtf1\ansi Hello \b world\b0.}")


if __name__ == "__main__":
    main()
