"""Talks to the model, line by line: python examples/chat.py"""

from responses_gateway import Client, Request


def main() -> None:
    with Client() as client, client.connect(model="gpt-5.5") as session:
        while True:
            try:
                line = input("> ")
            except EOFError:
                return
            for event in session.start(Request(input=line, instructions="Be brief.")):
                print(event.text_delta, end="", flush=True)
            print()


if __name__ == "__main__":
    main()
